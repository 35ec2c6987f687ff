"""What the four numbers of a box mean, and whether the boxes of a file speak against what is taken for granted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np

from winnow.families.detection.rules.label_rules import BoxFormat, BoxUnit, Convention, LabelSettings

MIN_BOXES = 20
_FITS, _MISFITS = 0.99, 0.90
# Tools that count pixels from 1 write edges up to a pixel beyond the picture.
_BEYOND_PX = 1.0
_MIN_SIDE_PX = 1.0
_WORDS = {
    "xywh": "x, y, width, height",
    "xyxy": "x1, y1, x2, y2",
    "cxcywh": "centre and size",
    "pixels": "in pixels",
    "fraction": "as fractions of the image",
}


def corners_of(numbers: np.ndarray, convention: Convention, sizes: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 in px (N, 4) of boxes in images of ``sizes`` (N, 2), width and height."""
    first, second = numbers[:, :2], numbers[:, 2:]
    with np.errstate(over="ignore", invalid="ignore"):
        if convention.format == "xywh":
            second = first + second
        elif convention.format == "cxcywh":
            first, second = first - second / 2, first + second / 2
        corners = np.concatenate([first, second], axis=1)
        return corners * np.tile(sizes, 2) if convention.unit == "fraction" else corners


def numbers_of(corners: np.ndarray, convention: Convention, sizes: np.ndarray) -> np.ndarray:
    """Return the numbers whose ``corners_of`` are ``corners``."""
    if convention.unit == "fraction":
        corners = corners / np.maximum(np.tile(sizes, 2), 1)
    first, second = corners[:, :2], corners[:, 2:]
    if convention.format == "xywh":
        second = second - first
    elif convention.format == "cxcywh":
        first, second = (first + second) / 2, second - first
    return np.concatenate([first, second], axis=1)


def misfit(numbers: np.ndarray, sizes: np.ndarray, held: Convention, labels: LabelSettings) -> str | None:
    """Return what to do about ``numbers`` (N, 4) that fit another convention than the one that is ``held``: at least 99 % of
    them lie in their image by the one, at most 90 % by the other. None where they don't, or are too few to tell."""
    if len(numbers) < MIN_BOXES:
        return None
    own = _part_inside(numbers, held, sizes)
    if own > _MISFITS:
        return None
    parts = {other: _part_inside(numbers, other, sizes) for other in _others(held, labels)}
    fitting = [other for other, part in sorted(parts.items(), key=lambda item: -item[1]) if part >= _FITS]
    if not fitting:
        return None
    shown = ", or ".join(f"{parts[other]:.0%} as {_words(other)} ({_overrides(other, held)})" for other in fitting)
    return (
        f"of its {len(numbers)} boxes {own:.0%} lie in their image when they are read as {_words(held)}, {shown}: give what "
        f"holds; {_overrides(held, fitting[0])} where they are right as they are"
    )


def same_boxes(image_rows: np.ndarray, labels: np.ndarray, boxes: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return the rows, of those ``among``, whose image, label and box are those of an earlier one."""
    if len(among) < 2:
        return among[:0]
    columns = [image_rows[among], labels[among], *boxes[among].view(np.uint32).T]
    mixed = np.zeros(len(among), np.uint64)
    for column in columns:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    is_same = np.concatenate([[False], mixed[order][1:] == mixed[order][:-1]])
    for column in columns:
        is_same[1:] &= column[order][1:] == column[order][:-1]
    return np.sort(among[order[is_same]])


def _part_inside(numbers: np.ndarray, convention: Convention, sizes: np.ndarray) -> float:
    corners = corners_of(numbers, convention, sizes)
    is_inside = (corners[:, :2] >= -_BEYOND_PX).all(axis=1) & (corners[:, 2:] <= sizes + _BEYOND_PX).all(axis=1)
    has_sides = (corners[:, 2:] - corners[:, :2] >= _MIN_SIDE_PX - 1e-3).all(axis=1)
    return float((is_inside & has_sides).mean())


def _others(held: Convention, labels: LabelSettings) -> Iterator[Convention]:
    formats: Sequence[BoxFormat] = get_args(BoxFormat) if labels.box_format is None else [labels.box_format]
    units: Sequence[BoxUnit] = get_args(BoxUnit) if labels.box_unit is None else [labels.box_unit]
    yield from (Convention(form, unit) for form in formats for unit in units if (form, unit) != held)


def _words(convention: Convention) -> str:
    return f"{_WORDS[convention.format]} {_WORDS[convention.unit]}"


def _overrides(one: Convention, other: Convention) -> str:
    """Return the keys that say ``one``, of those in which it is not ``other``."""
    return " ".join(
        f"data.box_{key}={value}"
        for key, value, old in zip(Convention._fields, one, other, strict=True)
        if value != old
    )
