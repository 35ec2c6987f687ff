"""Reads a COCO file into columns and finds every entry that violates a rule; used by training and by the check."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from winnow.errors import DataError
from winnow.families.detection.formats.coco_rules import SHOWN_KEYS, Rule
from winnow.reading import UnreadableError, as_float, parse_json

# Files written with two decimals put x + w up to this far beyond the edge by rounding alone.
_ROUNDING_PX = 0.02
# Whole numbers beyond it are not exact in float32.
_MAX_SIDE_PX = 2**24


@dataclass(eq=False)
class CocoTable:
    """A COCO file as columns, with the rows that violate each rule.

    Of images: ``image_ids``, ``file_names``, ``widths``, ``heights`` and ``image_keep``, one entry per row of the file.
    Of annotations: ``image_rows`` (−1 without image), ``labels`` in 0…n−1 (−1 unknown), ``boxes`` (N, 4) float32 xyxy in
    pixels clipped by their corners, ``areas`` in px², ``crowd``, and ``keep``, false where training drops the row.
    """

    path: Path
    sha256: str
    raw: Mapping[str, Sequence[Any]]
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    image_ids: list[int | str] = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)
    widths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    heights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    image_keep: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    image_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0))
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    keep: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    violations: dict[Rule, np.ndarray] = field(default_factory=dict)

    def note(self, rule: Rule, rows: Iterable[int] | np.ndarray) -> None:
        rows = np.flatnonzero(rows) if isinstance(rows, np.ndarray) else np.array(sorted(rows), dtype=np.int64)
        if rows.size:
            self.violations[rule] = rows

    def file_of(self, rule: Rule, row: int) -> str:
        """Return the image file that an entry is about; empty if there is none."""
        if rule.table == "categories":
            return ""
        image_row = row if rule.table == "images" else int(self.image_rows[row])
        return self.file_names[image_row] if image_row >= 0 else ""

    def id_of(self, rule: Rule, row: int) -> Any:
        """Return the entry's own id, or its position as ``#3`` if it has none."""
        entry = self.raw[rule.table][row]
        found = entry.get("id") if isinstance(entry, dict) else None
        return f"#{row}" if found is None else found

    def detail(self, rule: Rule, row: int) -> str:
        """Return the offending value, as it stands in the file."""
        entry = self.raw[rule.table][row]
        if not isinstance(entry, dict):
            return repr(entry)[:80]
        return ", ".join(f"{key} {entry.get(key)!r}"[:80] for key in SHOWN_KEYS.get(rule, ()))


def read_table(annotations: Path) -> CocoTable:
    """Read the columns of a COCO file and all that is wrong with its entries.

    Raises DataError if the file is missing, no JSON, or has no lists ``images``, ``annotations`` and ``categories``.
    """
    try:
        content = annotations.read_bytes()
    except OSError as error:
        raise DataError(f"annotation file {annotations} cannot be read: {error.strerror}") from error
    try:
        raw = parse_json(content)
    except UnreadableError as error:
        raise DataError(f"annotation file {annotations}: {error}") from error
    lists = ("images", "annotations", "categories")
    wrong = [name for name in lists if not isinstance(raw, dict) or not isinstance(raw.get(name), list)]
    if wrong:
        raise DataError(f"annotation file {annotations} is no COCO file: it has no list {' and no list '.join(wrong)}")
    table = CocoTable(annotations, hashlib.sha256(content).hexdigest(), {name: raw[name] for name in lists})
    label_of = _read_categories(table)
    _read_images(table)
    _read_annotations(table, label_of)
    return table


def _read_categories(table: CocoTable) -> dict[int, int]:
    names: dict[int, str] = {}
    bad: set[int] = set()
    duplicate: set[int] = set()
    same_name: set[int] = set()
    for row, entry in enumerate(table.raw["categories"]):
        number = _whole(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not isinstance(entry.get("name"), str) or not entry["name"]:
            bad.add(row)
        elif number in names:
            duplicate.add(row)
        else:
            is_taken = entry["name"] in names.values()
            names[number] = f"{entry['name']}#{number}" if is_taken else entry["name"]
            if is_taken:
                same_name.add(row)
    table.note(Rule.BAD_CATEGORY, bad)
    table.note(Rule.DUPLICATE_CATEGORY, duplicate)
    table.note(Rule.DUPLICATE_NAME, same_name)
    table.category_ids = tuple(sorted(names))
    table.class_names = tuple(names[number] for number in table.category_ids)
    return {number: label for label, number in enumerate(table.category_ids)}


def _read_images(table: CocoTable) -> None:
    entries = table.raw["images"]
    rows_of: dict[Rule, set[int]] = defaultdict(set)
    first_row: dict[int | str, int] = {}
    files: set[str] = set()
    sizes = np.zeros((len(entries), 2), np.int64)
    for row, entry in enumerate(entries):
        image_id, file_name, size = _image_fields(entry)
        table.image_ids.append(f"#{row}" if image_id is None else image_id)
        table.file_names.append(file_name)
        if image_id is None or not file_name or size is None:
            rows_of[Rule.BAD_IMAGE].add(row)
            continue
        sizes[row] = size
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
        if rule.repair != "kept":
            table.image_keep[list(rows)] = False


def _image_fields(entry: Any) -> tuple[int | str | None, str, tuple[int, int] | None]:
    if not isinstance(entry, dict):
        return None, "", None
    image_id = entry.get("id")
    if not isinstance(image_id, str):
        image_id = _whole(image_id)
    width, height = _whole(entry.get("width")) or 0, _whole(entry.get("height")) or 0
    is_size = all(0 < side < _MAX_SIDE_PX for side in (width, height))
    file_name = entry.get("file_name")
    return image_id, file_name if isinstance(file_name, str) else "", (width, height) if is_size else None


def _read_annotations(table: CocoTable, label_of: Mapping[int, int]) -> None:
    entries = [entry if isinstance(entry, dict) else {} for entry in table.raw["annotations"]]
    # A malformed image keeps its row here, so that its annotations are not reported as having none.
    row_of = {image_id: row for row, image_id in reversed(list(enumerate(table.image_ids)))}
    table.image_rows = _look_up(row_of, (entry.get("image_id") for entry in entries), len(entries))
    table.labels = _look_up(label_of, (_as_number(entry.get("category_id")) for entry in entries), len(entries))
    table.note(Rule.ORPHAN, table.image_rows < 0)
    table.keep = table.image_rows >= 0
    _find_duplicates(table, entries)
    table.note(Rule.UNKNOWN_CATEGORY, table.keep & (table.labels < 0))
    _read_boxes(table, entries)
    _fill(table, entries)
    is_annotated = np.zeros(len(table.image_ids), bool)
    is_annotated[table.image_rows[table.keep]] = True
    table.note(Rule.EMPTY_IMAGE, table.image_keep & ~is_annotated)


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


def _read_boxes(table: CocoTable, entries: Sequence[dict[str, Any]]) -> None:
    xywh = _box_array([entry.get("bbox") for entry in entries])
    is_finite = np.isfinite(xywh).all(axis=1)
    table.note(Rule.BAD_BOX, table.keep & ~is_finite)
    table.keep &= is_finite
    xywh = np.where(is_finite[:, None], xywh, 0)
    is_empty = (xywh[:, 2:] <= 0).any(axis=1)
    with np.errstate(over="ignore"):
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    rows = np.maximum(table.image_rows, 0)
    edges = np.stack([table.widths, table.heights], axis=1) if len(table.widths) else np.zeros((1, 2), np.int64)
    limits = np.tile(edges[rows], 2).astype(np.float64)
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


def _box_array(values: list[Any]) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros(0)
    if array.shape == (len(values), 4):
        return array
    rows = np.full((len(values), 4), np.nan)
    for row, value in enumerate(values):
        if isinstance(value, list) and len(value) == 4:
            rows[row] = [_real(x) for x in value]
    return rows


def _fill(table: CocoTable, entries: Sequence[dict[str, Any]]) -> None:
    values = [entry.get("area") for entry in entries]
    areas = np.array([_real(value) for value in values], dtype=np.float64)
    is_missing = ~((areas > 0) & (areas < np.finfo(np.float32).max))
    sides = (table.boxes[:, 2:] - table.boxes[:, :2]).astype(np.float64)
    table.areas = np.where(is_missing, sides.prod(axis=1), areas)
    flags = [entry.get("iscrowd") for entry in entries]
    table.crowd = np.array([bool(flag) for flag in flags], dtype=bool)
    table.note(Rule.NO_AREA, table.keep & is_missing)
    table.note(Rule.NO_CROWD_FLAG, table.keep & np.array([flag is None for flag in flags], dtype=bool))


def _whole(value: Any) -> int | None:
    """Return ``value`` as an int if it is a whole number (3, 3.0), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value and abs(value) != float("inf") and int(value) == value else None


def _real(value: Any) -> float:
    """Return ``value`` as a float, NaN if it is no number or too large for one; texts are none here."""
    return float("nan") if isinstance(value, str) else as_float(value)


def _as_number(value: Any) -> Any:
    return value if type(value) is int else _whole(value)


def _look_up(table: Mapping[Any, int], keys: Iterable[Any], count: int) -> np.ndarray:
    rows = (table.get(key, -1) if isinstance(key, int | str | float) else -1 for key in keys)
    return np.fromiter(rows, dtype=np.int64, count=count)
