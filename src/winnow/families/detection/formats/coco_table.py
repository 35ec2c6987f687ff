"""Reads a COCO file into columns and finds every entry that violates a rule; used by training and by the check."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from winnow.data.picture_facts import PictureFacts
from winnow.errors import DataError
from winnow.families.detection.formats.coco_boxes import fill, note_empty, note_same_boxes, read_boxes
from winnow.families.detection.formats.coco_entries import read_annotations, read_images
from winnow.families.detection.formats.coco_pictures import look_at_pictures
from winnow.families.detection.formats.coco_rules import SHOWN_KEYS, Rule
from winnow.families.detection.formats.other_files import content_of_another_kind, unlike_coco
from winnow.families.detection.formats.plain_coco import PlainCoco, plain_coco
from winnow.families.detection.rules.label_rules import Reading
from winnow.families.detection.rules.text_numbers import whole_of
from winnow.reading import UnreadableError, parse_json


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
        """Return the entries as they stand in the file. It is parsed only where they are looked at one by one, or one of them is
        to be shown. Raises DataError if it is no COCO file."""
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
        read_images(table)
        read_annotations(table, label_of)
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
    fill(table, plain.areas, plain.crowd, plain.has_flag)
    note_empty(table)


def _places(keys: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return (N,) the value of each key that is ``asked``, −1 where there is no such key."""
    if not len(keys):
        return np.full(len(asked), -1, np.int64)
    order = np.argsort(keys)
    places = order[np.minimum(np.searchsorted(keys, asked, sorter=order), len(keys) - 1)]
    return np.where(keys[places] == asked, values[places], -1).astype(np.int64)
