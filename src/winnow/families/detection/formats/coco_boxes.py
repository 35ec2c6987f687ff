"""Boxes of a COCO file as corners in pixels: whatever its numbers mean, from a mask where there is none, clipped to the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.families.detection.formats.coco_rules import Rule
from winnow.families.detection.rules.box_formats import corners_of, misfit, numbers_of, same_boxes
from winnow.families.detection.rules.label_rules import COCO_BOXES
from winnow.families.detection.rules.masks import box_of_mask, lacks_box
from winnow.families.detection.rules.text_numbers import real_of

if TYPE_CHECKING:
    from winnow.families.detection.formats.coco_table import CocoTable

# Files written with two decimals put x + w up to this far beyond the edge by rounding alone.
_ROUNDING_PX = 0.02

Corners = tuple[float, float, float, float]


def read_boxes(table: CocoTable, numbers: np.ndarray, masks: Mapping[int, Corners]) -> None:
    """Put the boxes that are ``numbers`` (N, 4), one per annotation row, or of ``masks`` by row, into ``table``, and drop those
    that nothing can be learnt from."""
    rows = np.maximum(table.image_rows, 0)
    edges = np.stack([table.widths, table.heights], axis=1) if len(table.widths) else np.zeros((1, 2), np.int64)
    sizes = edges[rows].astype(np.float64)
    corners, sides, is_finite = _corners(table, numbers, masks, sizes)
    table.note(Rule.BAD_BOX, table.keep & ~is_finite)
    table.keep &= is_finite
    corners, sides = (np.where(is_finite[:, None], values, 0) for values in (corners, sides))
    is_empty = (sides <= 0).any(axis=1)
    limits = np.tile(sizes, 2)
    clipped = np.clip(corners, 0, limits)
    table.boxes = clipped.astype(np.float32)
    # In float32, as training sees it: a sliver at x = 1000 can lose its width.
    has_area = (table.boxes[:, 2:] > table.boxes[:, :2]).all(axis=1)
    is_inside = ((corners[:, 2:] > 0) & (corners[:, :2] < limits[:, 2:])).all(axis=1)
    is_known = table.keep & table.image_keep[rows] if len(table.image_keep) else table.keep
    table.note(Rule.EMPTY_BOX, is_known & (is_empty | (is_inside & ~has_area)))
    table.note(Rule.BOX_OUTSIDE, is_known & ~is_empty & ~is_inside)
    table.keep = is_known & ~is_empty & has_area
    table.note(Rule.BOX_CLIPPED, table.keep & (np.abs(corners - clipped) > _ROUNDING_PX).any(axis=1))


def _corners(
    table: CocoTable, numbers: np.ndarray, masks: Mapping[int, Corners], sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return corners (N, 4) and sides (N, 2) in px, and which boxes are four finite numbers; note boxes taken from masks, and
    whether the numbers speak against what they are taken for."""
    reading = table.reading
    is_finite = np.isfinite(numbers).all(axis=1)
    native, held = reading.native, reading.held
    own = numbers if native == COCO_BOXES else numbers_of(corners_of(numbers, COCO_BOXES, sizes), native, sizes)
    is_judged = is_finite & table.keep & (sizes > 0).all(axis=1)
    is_judged[list(masks)] = False
    table.misfit = misfit(own[is_judged], sizes[is_judged], held, reading.labels)
    # What was converted from numbers of the held kind is as it should be; other numbers are read anew.
    numbers, kind = (numbers, COCO_BOXES) if held == native else (own, held)
    corners = corners_of(numbers, kind, sizes)
    sides = numbers[:, 2:].copy() if kind == COCO_BOXES else corners[:, 2:] - corners[:, :2]
    if masks:
        rows, boxes = list(masks), np.array(list(masks.values()))
        boxes *= np.tile(sizes[rows], 2) if held.unit == "fraction" and native == COCO_BOXES else 1
        corners[rows], sides[rows], is_finite[rows] = boxes, boxes[:, 2:] - boxes[:, :2], True
        table.note(Rule.BOX_OF_MASK, rows)
    return corners, sides, is_finite


def boxes_of_masks(entries: Sequence[dict[str, Any]]) -> dict[int, Corners]:
    """Return row → corners of the mask, of those annotations that have no box."""
    found = {}
    for row, entry in enumerate(entries):
        box = (
            box_of_mask(entry.get("segmentation")) if "segmentation" in entry and lacks_box(entry.get("bbox")) else None
        )
        if box is not None:
            found[row] = box
    return found


def note_same_boxes(table: CocoTable) -> None:
    """Note the boxes that an earlier annotation of the same class has too, and drop them where the rules say so."""
    rows = same_boxes(table.image_rows, table.labels, table.boxes, np.flatnonzero(table.keep))
    is_dropped = table.reading.labels.drop_duplicates
    table.note(Rule.SAME_BOX_DROPPED if is_dropped else Rule.SAME_BOX, rows.tolist())
    if is_dropped:
        table.keep[rows] = False


def box_array(values: list[Any], reads_text: bool) -> np.ndarray:
    """Return the four numbers of each box, (N, 4) float64, NaN where there are none."""
    try:
        array = np.array(values, dtype=None if reads_text else np.float64)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros(0)
    if array.shape == (len(values), 4) and array.dtype.kind in "iuf":
        return array.astype(np.float64)
    rows = np.full((len(values), 4), np.nan)
    for row, value in enumerate(values):
        if isinstance(value, list) and len(value) == 4:
            rows[row] = [real_of(x, reads_text) for x in value]
    return rows


def note_empty(table: CocoTable) -> None:
    """Note the images without an annotation."""
    is_annotated = np.zeros(len(table.image_ids), bool)
    is_annotated[table.image_rows[table.keep]] = True
    table.note(Rule.EMPTY_IMAGE, table.image_keep & ~is_annotated)


def fill(table: CocoTable, areas: np.ndarray, crowd: np.ndarray, has_flag: np.ndarray) -> None:
    """Put in the areas, the boxes' own where there are none, and the crowds."""
    if table.reading.reads_anew:
        areas[:] = np.nan  # they were made of other boxes
    if table.reading.held.unit == "fraction":
        areas[areas <= 1] = np.nan  # of a box in fractions
    is_missing = ~((areas > 0) & (areas < np.finfo(np.float32).max))
    sides = (table.boxes[:, 2:] - table.boxes[:, :2]).astype(np.float64)
    table.areas = np.where(is_missing, sides.prod(axis=1), areas)
    table.crowd = crowd
    table.note(Rule.NO_AREA, table.keep & is_missing)
    table.note(Rule.NO_CROWD_FLAG, table.keep & ~has_flag)
