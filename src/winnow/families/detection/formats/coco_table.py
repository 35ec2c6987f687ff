"""Reads a COCO file into columns and finds every entry that violates a rule; used by training and by the check."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from winnow.data.picture_facts import PictureFacts
from winnow.errors import DataError
from winnow.families.detection.formats.coco_boxes import box_array, boxes_of_masks, note_same_boxes, read_boxes
from winnow.families.detection.formats.coco_pictures import look_at_pictures
from winnow.families.detection.formats.coco_rules import SHOWN_KEYS, Rule
from winnow.families.detection.formats.other_files import content_of_another_kind, unlike_coco
from winnow.families.detection.formats.plain_coco import MAX_SIDE_PX, PlainCoco, plain_coco
from winnow.families.detection.rules.label_rules import Reading
from winnow.families.detection.rules.text_numbers import is_no_number, is_text_number, real_of, rows_by_number, whole_of
from winnow.reading import UnreadableError, parse_json

ImageFields = tuple[int | str | None, str, tuple[int, int] | None]
"""Id, file name and (width, height) of an image, (0, 0) where the file does not say; None and "" for what can't be used."""


@dataclass(eq=False)
class CocoTable:
    """A COCO file as columns, with the rows that violate each rule.

    Of images: ``image_ids``, ``file_names``, ``widths``, ``heights`` and ``image_keep``, one entry per row of the file.
    Of annotations: ``image_rows`` (−1 without image), ``labels`` in 0…n−1 (−1 unknown), ``boxes`` (N, 4) float32 xyxy in
    pixels clipped by their corners, ``areas`` in px², ``crowd``, and ``keep``, false where training drops the row.

    Of the files, where their folder is known: ``paths``, and the ``pictures``' facts where they were looked at, (N, 5) as
    ``PictureFacts``, one per image row; ``lost`` says which files fit the name of a row without a file. ``misfit`` says why the
    boxes must mean something else.
    """

    path: Path
    content: bytes
    reading: Reading
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
    paths: list[str] = field(default_factory=list)
    pictures: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.int32))
    lost: dict[int, tuple[str, ...]] = field(default_factory=dict)
    misfit: str | None = None

    @cached_property
    def raw(self) -> Mapping[str, Sequence[Any]]:
        """The entries as they stand in the file, parsed where they are looked at one by one, or one of them is to be shown.
        Raises DataError if it is no COCO file."""
        return _entries(self.path, self.content)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def picture(self, row: int) -> PictureFacts:
        """Return what is known of the picture of an image row."""
        width, height, orientation, bits, has_end = self.pictures[row].tolist()
        return PictureFacts(width, height, orientation, bits, bool(has_end))

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


def read_table(annotations: Path, reading: Reading | None = None) -> CocoTable:
    """Read the columns of a COCO file and all that is wrong with its entries; with a folder of images in ``reading`` also which
    files they are, and what is missing of their sizes.

    Raises DataError if the file is missing, no JSON, or has no lists ``images``, ``annotations`` and ``categories``.
    """
    if annotations.is_dir():
        raise DataError(
            f"annotation file {annotations} is a folder; data.root reads folders with COCO files, data=voc such with XML "
            "and data=yolo such with text files"
        )
    try:
        content = annotations.read_bytes()
    except OSError as error:
        raise DataError(f"annotation file {annotations} cannot be read: {error.strerror}") from error
    table = CocoTable(annotations, content, reading or Reading())
    plain = plain_coco(content)
    label_of = _read_categories(table, table.raw["categories"] if plain is None else plain.categories)
    if plain is None:
        _read_images(table)
        _read_annotations(table, label_of)
    else:
        _take_images(table, plain)
        _take_annotations(table, plain, label_of)
    return table


def _entries(annotations: Path, content: bytes) -> Mapping[str, Sequence[Any]]:
    try:
        raw = parse_json(content)
    except UnreadableError as error:
        other = content_of_another_kind(content)
        raise DataError(
            f"annotation file {annotations} {other}" if other else f"annotation file {annotations}: {error}"
        ) from error
    other = unlike_coco(raw)
    if other is not None:
        raise DataError(f"annotation file {annotations} {other}")
    lists = ("images", "annotations", "categories")
    wrong = [name for name in lists if not isinstance(raw, dict) or not isinstance(raw.get(name), list)]
    if wrong:
        raise DataError(f"annotation file {annotations} is no COCO file: it has no list {' and no list '.join(wrong)}")
    return {name: raw[name] for name in lists}


def _read_categories(table: CocoTable, entries: Sequence[Any]) -> dict[int, int]:
    names: dict[int, str] = {}
    bad: set[int] = set()
    duplicate: set[int] = set()
    same_name: set[int] = set()
    texts: set[int] = set()
    reads_text = table.reading.mends("numbers")
    for row, entry in enumerate(entries):
        number = whole_of(entry.get("id"), reads_text) if isinstance(entry, dict) else None
        if number is not None and isinstance(entry["id"], str):
            texts.add(row)
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
    table.note(Rule.TEXT_IN_CATEGORY, texts)
    table.category_ids = tuple(sorted(names))
    table.class_names = tuple(names[number] for number in table.category_ids)
    return {number: label for label, number in enumerate(table.category_ids)}


def _take_images(table: CocoTable, plain: PlainCoco) -> None:
    table.image_ids, table.file_names = plain.image_ids.tolist(), plain.file_names
    rows_of: dict[Rule, set[int]] = defaultdict(set)
    sizes = plain.sizes
    if table.reading.images is not None:
        sizes = look_at_pictures(table, sizes, np.ones(len(sizes), bool), rows_of)
    table.widths, table.heights = sizes[:, 0], sizes[:, 1]
    table.image_keep = np.ones(len(sizes), bool)
    for rule, rows in rows_of.items():
        table.note(rule, rows)


def _read_images(table: CocoTable) -> None:
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


def _take_annotations(table: CocoTable, plain: PlainCoco, label_of: Mapping[int, int]) -> None:
    table.image_rows = _places(plain.image_ids, np.arange(len(plain.image_ids)), plain.owners)
    # A category that no int64 can hold is no annotation's either.
    numbers = {number: label for number, label in label_of.items() if -(2**63) <= number < 2**63}
    table.labels = _places(np.array(list(numbers), np.int64), np.array(list(numbers.values())), plain.category_ids)
    table.note(Rule.ORPHAN, table.image_rows < 0)
    table.keep = table.image_rows >= 0
    table.note(Rule.UNKNOWN_CATEGORY, table.keep & (table.labels < 0))
    read_boxes(table, plain.boxes, {})
    note_same_boxes(table)
    _fill(table, plain.areas, plain.crowd, plain.has_flag)
    _note_empty(table)


def _places(keys: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return (N,) the value of each key that is ``asked``, −1 where there is no such key."""
    if not len(keys):
        return np.full(len(asked), -1, np.int64)
    order = np.argsort(keys)
    places = order[np.minimum(np.searchsorted(keys, asked, sorter=order), len(keys) - 1)]
    return np.where(keys[places] == asked, values[places], -1).astype(np.int64)


def _read_annotations(table: CocoTable, label_of: Mapping[int, int]) -> None:
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
    _fill(table, areas, crowd, np.array([flag is not None for flag in flags], dtype=bool))
    _note_empty(table)


def _note_empty(table: CocoTable) -> None:
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


def _fill(table: CocoTable, areas: np.ndarray, crowd: np.ndarray, has_flag: np.ndarray) -> None:
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


def _is_crowd(flag: Any, reads_text: bool) -> bool:
    return bool(real_of(flag, reads_text=True)) if reads_text and is_text_number(flag) else bool(flag)


def _look_up(table: Mapping[Any, int], keys: Iterable[Any], count: int) -> np.ndarray:
    rows = (table.get(key, -1) if isinstance(key, int | str | float) else -1 for key in keys)
    return np.fromiter(rows, dtype=np.int64, count=count)
