"""Turns a COCO annotation file and its image folder into records ready for training, refusing what would corrupt it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from winnow.errors import DataError
from winnow.families.detection.formats.coco_rules import Rule
from winnow.families.detection.formats.coco_table import CocoTable, read_table
from winnow.families.detection.formats.record_cache import keep_split, kept_split
from winnow.families.detection.formats.records import CocoSplit, Columns, FlatRecords, Texts, ids_of
from winnow.reading import collector_paused

logger = logging.getLogger(__name__)

# Part of the fingerprint: raise it when the same file gives other records than before.
_READER_VERSION = 1
_NUM_SHOWN = 5
_SUSPICIOUS_FRACTION = 0.1


def read_coco(annotations: Path, images: Path, cache: Path | None = None) -> CocoSplit:
    """Read the split that ``annotations`` describes, its file names relative to ``images``; what it comes to is kept in
    ``cache``, and mapped into memory from there.

    Harmless faults are repaired and counted; raises DataError listing the entries that would corrupt training (`Rule`
    says which is which), or the image files that are missing.
    """
    annotations, images = Path(annotations), Path(images)
    key = key_of(annotations) if cache is not None else None
    split = None if cache is None or key is None else kept_split(cache, key, images)
    if split is None:
        split = _read(annotations, images)
        if cache is not None and key is not None:
            split = keep_split(split, cache, key, images)
    _require_images(split, annotations, images)
    for doubt in split.doubts:
        logger.warning("%s: %s", annotations, doubt)
    return split


def key_of(annotations: Path) -> str | None:
    """Return a digest of all that the records of a file depend on; None for a file that can't be read."""
    try:
        with annotations.open("rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()} {_READER_VERSION}"
    except OSError:
        return None


def _read(annotations: Path, images: Path) -> CocoSplit:
    with collector_paused():
        table = read_table(annotations)
        _refuse(table)
        repairs = {
            rule.label: len(rows) for rule, rows in table.violations.items() if rule.repair not in (None, "kept")
        }
        return CocoSplit(
            records=FlatRecords(_columns(table), str(images)),
            class_names=table.class_names,
            category_ids=table.category_ids,
            fingerprint=f"coco{_READER_VERSION}-{table.sha256}",
            repairs=repairs,
            doubts=tuple(_doubts(table, repairs)),
        )


def _require_images(split: CocoSplit, annotations: Path, images: Path) -> None:
    assert isinstance(split.records, FlatRecords)
    missing = find_missing_files(split.records.paths())
    if missing:
        raise DataError(
            f"{len(missing)} of {len(split.records)} images of {annotations} are not in {images}: {_first(missing)}"
        )


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


def _doubts(table: CocoTable, repairs: Mapping[str, int]) -> Iterator[str]:
    """Give what the log should warn of."""
    for rule, rows in table.violations.items():
        if rule.is_problem and rule.repair == "kept":
            yield f"{rule.label}: {len(rows)}, left as they are"
    num_boxes = sum(repairs.get(rule.label, 0) for rule in (Rule.EMPTY_BOX, Rule.BOX_OUTSIDE, Rule.BOX_CLIPPED))
    if num_boxes > _SUSPICIOUS_FRACTION * len(table.keep):
        yield (
            f"{num_boxes} of {len(table.keep)} boxes do not fit their image; COCO boxes are x, y, width, height in pixels"
        )


def _columns(table: CocoTable) -> Columns:
    kept = np.flatnonzero(table.image_keep)
    rows = np.flatnonzero(table.keep)
    rows = rows[np.argsort(table.image_rows[rows], kind="stable")]
    # Annotations of an image entry that is not kept are not either.
    starts = np.searchsorted(table.image_rows[rows], kept, side="left")
    return Columns(
        ids_of([table.image_ids[row] for row in kept.tolist()]),
        Texts.of([table.file_names[row] for row in kept.tolist()]),
        np.stack([table.widths[kept], table.heights[kept]], axis=1),
        np.append(starts, len(rows)).astype(np.int64),
        table.boxes[rows], table.labels[rows], table.areas[rows].astype(np.float32), table.crowd[rows],
    )  # fmt: skip
