"""What a report's page is made of: sections of tables, charts and pictures, as plain values. ``winnow.report`` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """Words that lead to another file, ``target`` being relative to the page."""

    words: str
    target: str


Cell = str | int | float | Link | None


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Commands:
    """Lines to type, each with what it does."""

    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of cells below ``columns``; None is an empty cell. Cells at ``marked`` (row, column) are the best of their kind."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    marked: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Series:
    """One line of a chart: y over x, of equal length; what is no number is left out. ``faint`` lines stay in the background."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False


@dataclass(frozen=True)
class Lines:
    """Lines over a common axis; with ``points`` they are drawn as points. ``y_range`` None: what the values span."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    y_range: tuple[float, float] | None = None
    points: bool = False
    log_x: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar per name, in the given order."""

    title: str
    names: Sequence[str]
    values: Sequence[float]
    note: str = ""


@dataclass(frozen=True)
class Matrix:
    """Counts by row and column, such as a confusion matrix."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[int]]
    row_label: str
    column_label: str


@dataclass(frozen=True)
class Axis:
    """An axis of parallel coordinates: numbers between the smallest and the largest, or one of ``choices``."""

    name: str
    choices: Sequence[str] = ()
    log: bool = False


@dataclass(frozen=True)
class Parallel:
    """A line per row across ``axes``; what a row lacks is None. Lines of a high ``shade`` in [0, 1] are the strongest."""

    title: str
    axes: Sequence[Axis]
    rows: Sequence[Sequence[float | str | None]]
    shades: Sequence[float]


@dataclass(frozen=True)
class Picture:
    """An encoded JPEG or PNG, and what it shows."""

    caption: str
    content: bytes
    media_type: str = "image/jpeg"


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other."""

    pictures: Sequence[Picture]
    note: str = ""


Block = Text | Commands | Table | Lines | Bars | Matrix | Parallel | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading."""

    title: str
    blocks: Sequence[Block]
