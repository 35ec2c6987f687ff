"""Numbers of label files, some of them written as text: text that is a number is that number, anything else is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from winnow.reading import as_float


def whole_of(value: Any, reads_text: bool) -> int | None:
    """Return ``value`` as an int if it is a whole number (3, 3.0, and "3" where ``reads_text``), else None."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        if not reads_text:
            return None
        if re.fullmatch(r"\s*[+-]?[0-9]{1,300}\s*", value):
            return int(value)
        value = as_float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value and abs(value) != float("inf") and int(value) == value else None


def real_of(value: Any, reads_text: bool) -> float:
    """Return ``value`` as a float, NaN if it is no number or too large for one."""
    return float("nan") if isinstance(value, str) and not reads_text else as_float(value)


def is_text_number(value: Any) -> bool:
    """Tell whether ``value`` is a text that is a number."""
    return isinstance(value, str) and as_float(value) == as_float(value)


def is_no_number(value: Any) -> bool:
    """Tell whether ``value`` is there and is neither a number, true or false, nor the text of a number."""
    return value is not None and not isinstance(value, bool | int | float) and not is_text_number(value)


def rows_by_number(rows: Mapping[Any, int], keys: Iterable[Any]) -> dict[Any, int]:
    """Return ``rows``, whose keys are ids, with those of ``keys`` that are an id only when both are read as numbers: ``"7"`` is
    7. Ids that are the same number lead nowhere."""
    by_number: dict[int, int | None] = {}
    for key, row in rows.items():
        number = whole_of(key, reads_text=True)
        if number is not None:
            by_number[number] = None if number in by_number else row
    found = dict(rows)
    for key in keys:
        number = whole_of(key, reads_text=True)
        place = by_number.get(number) if number is not None else None
        if place is not None and isinstance(key, int | str | float):
            found.setdefault(key, place)
    return found
