"""Boxes of objects that only have a mask: polygons, or runs as COCO writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from winnow.reading import as_float

_MAX_PIXELS = 2**40


def lacks_box(box: Any) -> bool:
    """Tell whether ``box``, as it stands in a file, says nothing: absent, null, empty or all zeros."""
    return box is None or (
        isinstance(box, list) and (not box or (len(box) == 4 and all(_is_zero(side) for side in box)))
    )


def box_of_mask(mask: Any) -> tuple[float, float, float, float] | None:
    """Return x1, y1, x2, y2 of a COCO ``segmentation``: a list of polygons, one polygon, or runs, compressed or not. None where
    it is none of them, or empty."""
    if isinstance(mask, Mapping):
        return _box_of_runs(mask)
    if not isinstance(mask, list) or not mask:
        return None
    polygons = mask if isinstance(mask[0], list) else [mask]
    values = [as_float(value) for polygon in polygons if isinstance(polygon, list) for value in polygon]
    if len(values) < 6 or any(not isinstance(polygon, list) or len(polygon) % 2 for polygon in polygons):
        return None
    points = np.array(values).reshape(-1, 2)
    if not np.isfinite(points).all():
        return None
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def _box_of_runs(mask: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    size, counts = mask.get("size"), mask.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        return None
    runs = list(_unpacked(counts)) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and 0 <= run < _MAX_PIXELS for run in runs):
        return None
    return _box_of_columns(runs, size[0])


def _box_of_columns(runs: Sequence[int], height: int) -> tuple[float, float, float, float] | None:
    """Return the box of ``runs``, which go down the columns of a picture of ``height`` px and begin outside."""
    ends = np.cumsum(np.array(runs, dtype=np.int64))
    first, last = ends[:-1][::2], ends[1::2] - 1
    is_run = last >= first
    first, last = first[is_run], last[is_run]
    if not len(first):
        return None
    stays = first // height == last // height
    top = np.where(stays, first % height, 0).min()
    bottom = np.where(stays, last % height, height - 1).max()
    return float((first // height).min()), float(top), float((last // height).max() + 1), float(bottom + 1)


def _unpacked(text: str) -> Iterator[int]:
    """Give the runs of COCO's compressed form: numbers of 5 bits a letter, from the third on as differences to the last but
    one."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    yield from runs


def _is_zero(side: Any) -> bool:
    return as_float(side) == 0
