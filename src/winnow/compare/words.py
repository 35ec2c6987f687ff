"""Values of a comparison as short text, the same in the table and on the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from winnow.compare.comparison import ABSENT, Change, Comparison, Row

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def column(index: int) -> str:
    """Return a column's name: A, B, … Z, A2, B2, …"""
    return LETTERS[index % len(LETTERS)] + (str(index // len(LETTERS) + 1) if index >= len(LETTERS) else "")


def value_text(value: Any) -> str:
    if value is ABSENT:
        return "–"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=str)
    except TypeError:  # a key that JSON has not
        return str(value)


def number_text(value: float) -> str:
    """Format with at most six digits; whole numbers as such."""
    if not math.isfinite(value):
        return "∞" if value > 0 else str(value)
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.6g}"


def change_text(change: Change) -> str:
    if change.relative is None:
        return "not in it"
    part = f" ({change.num_left_out} tensors left out)" if change.num_left_out else ""
    return f"{_rounded(change.relative)}{part}"


def _rounded(value: float) -> str:
    return number_text(value) if value == 0 or not math.isfinite(value) else f"{value:.3g}"


def best_columns(comparison: Comparison, row: Row) -> set[int]:
    """Return the columns where the objective stands best, if all who have one agree on it and its direction; none for
    any other metric.
    """
    objectives = {subject.objective for subject in comparison.subjects if subject.objective is not None}
    if len(objectives) != 1:
        return set()
    metric, mode = next(iter(objectives))
    if row.name not in (metric, f"best/{metric.removeprefix('val/')}"):
        return set()
    numbers = {index: value for index, value in enumerate(row.values) if isinstance(value, float) and value == value}
    if len(numbers) < 2:
        return set()
    best = (max if mode == "max" else min)(numbers.values())
    return {index for index, value in numbers.items() if value == best}


def config_note(comparison: Comparison) -> str | None:
    """Return what to say if a config is missing, or if none differs."""
    without = [column(index) for index, subject in enumerate(comparison.subjects) if subject.config is None]
    if without:
        return f"{', '.join(without)} without a config"
    return None if comparison.config else "no difference"


def joined(lines: Sequence[str]) -> str:
    return "; ".join(lines)
