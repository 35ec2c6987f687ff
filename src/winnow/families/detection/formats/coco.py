"""Turns a COCO annotation file and its image folder into records ready for training, refusing what would corrupt it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from winnow.errors import DataError
from winnow.families.detection.formats.coco_rules import Rule
from winnow.families.detection.formats.coco_table import CocoTable, read_table

logger = logging.getLogger(__name__)

# Part of the fingerprint: raise it when the same file gives other records than before.
_READER_VERSION = 1
_NUM_SHOWN = 5
_SUSPICIOUS_FRACTION = 0.1


@dataclass(frozen=True, eq=False, slots=True)
class ImageRecord:
    """One image and its objects, in pixels of the image as annotated.

    ``boxes`` (N, 4) float32 xyxy, clipped to the image by their corners, none without area; ``labels`` (N,) int64 in
    0…n−1; ``areas`` (N,) float32 px², the annotation's own where it has one; ``crowd`` (N,) bool.
    """

    image_id: int | str
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """All images of one annotation file, in the file's order; label i is ``class_names[i]`` and ``category_ids[i]``.

    ``fingerprint`` changes when the records may; ``repairs`` counts what was mended or dropped, by kind.
    """

    records: tuple[ImageRecord, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    fingerprint: str
    repairs: Mapping[str, int]


def read_coco(annotations: Path, images: Path) -> CocoSplit:
    """Read the split that ``annotations`` describes, its file names relative to ``images``.

    Harmless faults are repaired and counted; raises DataError listing the entries that would corrupt training (`Rule`
    says which is which), or the image files that are missing.
    """
    annotations, images = Path(annotations), Path(images)
    table = read_table(annotations)
    _refuse(table)
    kept = np.flatnonzero(table.image_keep)
    paths = [os.path.join(images, table.file_names[row]) for row in kept]
    missing = find_missing_files(paths)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images of {annotations} are not in {images}: {_first(missing)}"
        )
    repairs = {rule.label: len(rows) for rule, rows in table.violations.items() if rule.repair not in (None, "kept")}
    _log_doubts(table, repairs)
    return CocoSplit(
        records=_records(table, kept, paths),
        class_names=table.class_names,
        category_ids=table.category_ids,
        fingerprint=f"coco{_READER_VERSION}-{table.sha256}",
        repairs=repairs,
    )


def require_same_classes(train: CocoSplit, val: CocoSplit) -> None:
    """Raise DataError listing the categories that ``train`` and ``val`` do not share by id and name."""
    differences = category_differences(
        dict(zip(train.category_ids, train.class_names, strict=True)),
        dict(zip(val.category_ids, val.class_names, strict=True)),
    )
    if differences:
        raise DataError(f"train and val must have the same categories; {_first(differences, '; ')}")


def category_differences(train: Mapping[int, str], val: Mapping[int, str]) -> list[str]:
    """Return one line for each category id whose name differs between ``train`` and ``val``, or that one of them lacks."""
    return [
        f"category {number}: {train.get(number, 'absent')!r} in train, {val.get(number, 'absent')!r} in val"
        for number in sorted(train.keys() | val.keys())
        if train.get(number) != val.get(number)
    ]


def find_missing_files(paths: Sequence[str]) -> list[str]:
    """Return those of ``paths`` that do not exist, in order; list each folder once instead of asking for each file."""
    listings: dict[str, frozenset[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = _file_names(folder)
        if name not in listings[folder]:
            missing.append(path)
    return missing


def _file_names(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_dir())
    except (OSError, ValueError):  # not there, or a name that no folder can have
        return frozenset()


def _refuse(table: CocoTable) -> None:
    lines = []
    for rule, rows in table.violations.items():
        if rule.is_refused:
            shown = [_describe(table, rule, int(row)) for row in rows[:_NUM_SHOWN]]
            lines.append(f"  {rule.label} ({len(rows)}): {_first(shown, '; ', len(rows))}")
    if lines:
        raise DataError(f"{table.path} would corrupt training:\n" + "\n".join(lines))
    if not table.image_keep.any():
        raise DataError(f"{table.path} lists no images")
    if not table.class_names:
        raise DataError(f"{table.path} lists no categories")
    if len(table.keep) and not table.keep.any():
        reasons = ", ".join(f"{rule.label} ({len(rows)})" for rule, rows in table.violations.items() if rule.is_problem)
        raise DataError(f"none of the {len(table.keep)} annotations of {table.path} can be used: {reasons}")


def _describe(table: CocoTable, rule: Rule, row: int) -> str:
    kind = {"categories": "category", "images": "image", "annotations": "annotation"}[rule.table]
    file_name = table.file_of(rule, row)
    place = f" of {file_name}" if file_name and kind == "annotation" else f" ({file_name})" if file_name else ""
    detail = table.detail(rule, row)
    return f"{kind} {table.id_of(rule, row)}{place}" + (f": {detail}" if detail else "")


def _first(items: Sequence[str], separator: str = ", ", count: int | None = None) -> str:
    count = len(items) if count is None else count
    more = f" and {count - _NUM_SHOWN} more" if count > _NUM_SHOWN else ""
    return separator.join(items[:_NUM_SHOWN]) + more


def _log_doubts(table: CocoTable, repairs: Mapping[str, int]) -> None:
    for rule, rows in table.violations.items():
        if rule.is_problem and rule.repair == "kept":
            logger.warning("%s: %s: %d, left as they are", table.path, rule.label, len(rows))
    num_boxes = sum(repairs.get(rule.label, 0) for rule in (Rule.EMPTY_BOX, Rule.BOX_OUTSIDE, Rule.BOX_CLIPPED))
    if num_boxes > _SUSPICIOUS_FRACTION * len(table.keep):
        logger.warning(
            "%s: %d of %d boxes do not fit their image; COCO boxes are x, y, width, height in pixels",
            table.path,
            num_boxes,
            len(table.keep),
        )


def _records(table: CocoTable, kept: np.ndarray, paths: Sequence[str]) -> tuple[ImageRecord, ...]:
    rows = np.flatnonzero(table.keep)
    rows = rows[np.argsort(table.image_rows[rows], kind="stable")]
    boxes, labels = table.boxes[rows], table.labels[rows]
    areas, crowd = table.areas[rows].astype(np.float32), table.crowd[rows]
    starts = np.searchsorted(table.image_rows[rows], kept, side="left")
    ends = np.searchsorted(table.image_rows[rows], kept, side="right")
    return tuple(
        ImageRecord(
            image_id=table.image_ids[row],
            path=Path(path),
            width=int(table.widths[row]),
            height=int(table.heights[row]),
            boxes=boxes[start:end],
            labels=labels[start:end],
            areas=areas[start:end],
            crowd=crowd[start:end],
        )
        for row, path, start, end in zip(kept.tolist(), paths, starts.tolist(), ends.tolist(), strict=True)
    )
