"""What a part of the check found: figures with their aims, and one verdict that never flatters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["passed", "measured", "rehearsed", "missed", "skipped", "not run", "stopped", "failed"]
WORST_FIRST: tuple[Verdict, ...] = (
    "failed", "stopped", "not run", "skipped", "missed", "passed", "measured", "rehearsed",
)  # fmt: skip
"""A part is as good as the worst of its figures. One with an aim that was reached is ``passed``; ``measured`` has no aim."""
UNDONE: tuple[Verdict, ...] = ("failed", "stopped", "not run")


class Skipped(Exception):  # noqa: N818 - not an error
    """Raised by a part whose package, kernel or device is not there; the message says which."""


@dataclass(frozen=True)
class Figure:
    """One row of the table: ``value`` in ``unit``, or words; ``aim`` as words, None where none was set."""

    name: str
    value: float | str
    unit: str = ""
    aim: str | None = None
    verdict: Verdict = "measured"

    @property
    def words(self) -> str:
        """Return the value as the table shows it."""
        return self.value if isinstance(self.value, str) else f"{self.value:.4g} {self.unit}".strip()


def at_least(name: str, value: float, aim: float, unit: str = "") -> Figure:
    return Figure(name, value, unit, f"≥ {aim:g}", "passed" if value >= aim else "missed")


def at_most(name: str, value: float, aim: float, unit: str = "") -> Figure:
    return Figure(name, value, unit, f"≤ {aim:g}", "passed" if value <= aim else "missed")


def required(name: str, holds: bool, words: str, aim: str) -> Figure:
    """Return the row of something that is right or wrong."""
    return Figure(name, words, aim=aim, verdict="passed" if holds else "failed")


@dataclass(frozen=True)
class Place:
    """Where a part works: ``folder`` is its own, ``data`` holds the drawn data sets of all parts. ``smoke`` is a rehearsal: tiny,
    and no figure counts. ``is_warm``: a fork of this process can use the device; else each process makes its own imports."""

    folder: Path
    data: Path
    device: str
    smoke: bool
    is_warm: bool = True

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


@dataclass(frozen=True)
class Part:
    """A piece of the check; ``seconds`` is its own time limit. ``find`` yields figures as they come, so that a part that is
    stopped leaves what it had."""

    name: str
    seconds: float
    find: Callable[[Place], Iterator[Figure]]

    @property
    def what(self) -> str:
        """Return what the part measures: the first line of its docstring."""
        return (self.find.__doc__ or "").split("\n")[0]


@dataclass
class Outcome:
    """What came of one part; ``reason`` says why it was skipped, stopped, failed or not run."""

    part: str
    figures: list[Figure] = field(default_factory=list)
    seconds: float = 0.0
    ended: Verdict | None = None
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        found = {figure.verdict for figure in self.figures} | ({self.ended} if self.ended else set())
        if not found:
            return "failed"  # nothing was found: no part may pass by that
        return next(verdict for verdict in WORST_FIRST if verdict in found)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}

    @classmethod
    def of(cls, part: str, values: dict[str, Any]) -> Outcome:
        """Return the outcome that a part's process wrote down."""
        figures = [Figure(**figure) for figure in values["figures"]]
        return cls(part, figures, ended=values["ended"], reason=values["reason"])

    def rehearsed(self) -> Outcome:
        """Return the outcome as a rehearsal may tell it: nothing passes, nothing counts; what failed or was skipped stays so."""
        kept = ("failed", "skipped")
        figures = [
            figure
            if figure.verdict in kept
            else Figure(figure.name, figure.value, figure.unit, figure.aim, "rehearsed")
            for figure in self.figures
        ]
        return Outcome(self.part, figures, self.seconds, self.ended, self.reason)


def missing(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the names of the parts that did not come to their end."""
    return [outcome.part for outcome in outcomes if outcome.verdict in ("stopped", "not run")]
