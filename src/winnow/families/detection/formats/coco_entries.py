"""Reads the images and annotations of a COCO file entry by entry, whatever each of them holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.families.detection.formats.coco_boxes import (
    box_array,
    boxes_of_masks,
    fill,
    note_empty,
    note_same_boxes,
    read_boxes,
)
from winnow.families.detection.formats.coco_pictures import look_at_pictures
from winnow.families.detection.formats.coco_rules import Rule
from winnow.families.detection.formats.plain_coco import MAX_SIDE_PX
from winnow.families.detection.rules.text_numbers import is_no_number, is_text_number, real_of, rows_by_number, whole_of

if TYPE_CHECKING:
    from winnow.families.detection.formats.coco_table import CocoTable

ImageFields = tuple[int | str | None, str, tuple[int, int] | None]
"""Id, file name and (width, height) of an image, (0, 0) where the file does not say; None and "" for what can't be used."""


def read_images(table: CocoTable) -> None:
    """Put the images of ``table.raw`` into ``table``, and note what is wrong with them."""
    entries = table.raw["images"]
    rows_of: dict[Rule, set[int]] = defaultdict(set)
    first_row: dict[int | str, int] = {}
    files: set[str] = set()
    fields = [_image_fields(entry, table.reading.mends("numbers")) for entry in entries]
    table.file_names += [file_name for _, file_name, _ in fields]
    sizes = np.array([size or (0, 0) for _, _, size in fields], np.int64).reshape(-1, 2)
    if table.reading.images is not None:
        is_known = np.array([bool(name) and size is not None for _, name, size in fields], bool)
        sizes = look_at_pictures(table, sizes, is_known, rows_of)
    for row, (image_id, file_name, size) in enumerate(fields):
        table.image_ids.append(f"#{row}" if image_id is None else image_id)
        if image_id is None or not file_name or size is None or 0 in sizes[row]:
            rows_of[Rule.BAD_IMAGE].add(row)
            sizes[row] = 0
            continue
        entry = entries[row]
        if isinstance(entry.get("width"), str) or isinstance(entry.get("height"), str):
            rows_of[Rule.TEXT_IN_IMAGE].add(row)
        if image_id in first_row:
            is_same = entries[first_row[image_id]] == entry
            rows_of[Rule.REPEATED_IMAGE if is_same else Rule.DUPLICATE_IMAGE].add(row)
            continue
        first_row[image_id] = row
        if file_name in files:
            rows_of[Rule.DUPLICATE_FILE].add(row)
        files.add(file_name)
    table.widths, table.heights = sizes[:, 0], sizes[:, 1]
    table.image_keep = np.ones(len(entries), bool)
    for rule, rows in rows_of.items():
        table.note(rule, rows)
        if rule.repair in (None, "dropped"):
            table.image_keep[list(rows)] = False


def _image_fields(entry: Any, reads_text: bool) -> ImageFields:
    if not isinstance(entry, dict):
        return None, "", None
    image_id = entry.get("id")
    if not isinstance(image_id, str):
        image_id = whole_of(image_id, reads_text)
    file_name = entry.get("file_name")
    return (
        image_id,
        file_name if isinstance(file_name, str) else "",
        _size(entry.get("width"), entry.get("height"), reads_text),
    )


def _size(width: Any, height: Any, reads_text: bool) -> tuple[int, int] | None:
    """Return (width, height), (0, 0) where either is missing, zero or below; None for what is no size."""
    sides = [0 if side is None else whole_of(side, reads_text) for side in (width, height)]
    if any(side is None or side >= MAX_SIDE_PX for side in sides):
        return None
    return (0, 0) if any(side <= 0 for side in sides if side is not None) else (sides[0] or 0, sides[1] or 0)


def read_annotations(table: CocoTable, label_of: Mapping[int, int]) -> None:
    """Put the annotations of ``table.raw`` into ``table``, and note what is wrong with them; ``label_of`` category ids."""
    entries = [entry if isinstance(entry, dict) else {} for entry in table.raw["annotations"]]
    # A malformed image keeps its row here, so that its annotations are not reported as having none.
    row_of: Mapping[Any, int] = {image_id: row for row, image_id in reversed(list(enumerate(table.image_ids)))}
    reads_text = table.reading.mends("numbers")
    image_ids, category_ids = ([entry.get(key) for entry in entries] for key in ("image_id", "category_id"))
    table.image_rows = _look_up(row_of, image_ids, len(entries))
    is_lost = table.image_rows < 0
    if reads_text and is_lost.any():
        lost = [image_ids[row] for row in np.flatnonzero(is_lost).tolist()]
        table.image_rows = _look_up(rows_by_number(row_of, lost), image_ids, len(entries))
    table.labels = _look_up(label_of, (whole_of(number, reads_text) for number in category_ids), len(entries))
    if reads_text:
        _find_texts(table, entries, is_lost)
    table.note(Rule.ORPHAN, table.image_rows < 0)
    table.keep = table.image_rows >= 0
    _find_duplicates(table, entries)
    table.note(Rule.UNKNOWN_CATEGORY, table.keep & (table.labels < 0))
    masks = boxes_of_masks(entries) if table.reading.mends("masks") else {}
    read_boxes(table, box_array([entry.get("bbox") for entry in entries], reads_text), masks)
    note_same_boxes(table)
    areas = np.array([real_of(entry.get("area"), reads_text) for entry in entries], dtype=np.float64)
    flags = [entry.get("iscrowd") for entry in entries]
    crowd = np.array([_is_crowd(flag, reads_text) for flag in flags], dtype=bool)
    fill(table, areas, crowd, np.array([flag is not None for flag in flags], dtype=bool))
    note_empty(table)


def _find_duplicates(table: CocoTable, entries: Sequence[dict[str, Any]]) -> None:
    ids = [entry.get("id") for entry in entries]
    ids = [number if isinstance(number, Hashable) else None for number in ids]
    if len(set(ids)) == len(ids):
        return
    first_row: dict[Any, int] = {}
    repeated: set[int] = set()
    duplicate: set[int] = set()
    for row, number in enumerate(ids):
        if number is None or not table.keep[row]:
            continue
        first = first_row.setdefault(number, row)
        if first != row:
            (repeated if entries[first] == entries[row] else duplicate).add(row)
    table.note(Rule.REPEATED_ANNOTATION, repeated)
    table.note(Rule.DUPLICATE_ID, duplicate)
    table.keep[list(repeated)] = False


def _find_texts(table: CocoTable, entries: Sequence[dict[str, Any]], was_lost: np.ndarray) -> None:
    """Note the annotations with a number written as text, and those whose iscrowd or area is no number at all."""
    found = set(np.flatnonzero(was_lost & (table.image_rows >= 0)).tolist())
    bad = set()
    for row, entry in enumerate(entries):
        values = [entry.get("category_id"), entry.get("area"), entry.get("iscrowd")]
        box = entry.get("bbox")
        if any(type(value) is str for value in values) or (isinstance(box, list) and any(type(x) is str for x in box)):
            found.add(row)
        if any(is_no_number(value) for value in values[1:]):
            bad.add(row)
    table.note(Rule.TEXT_IN_ANNOTATION, found - bad)
    table.note(Rule.BAD_NUMBER, bad)


def _is_crowd(flag: Any, reads_text: bool) -> bool:
    return bool(real_of(flag, reads_text=True)) if reads_text and is_text_number(flag) else bool(flag)


def _look_up(table: Mapping[Any, int], keys: Iterable[Any], count: int) -> np.ndarray:
    rows = (table.get(key, -1) if isinstance(key, int | str | float) else -1 for key in keys)
    return np.fromiter(rows, dtype=np.int64, count=count)
