"""Turns a COCO annotation file and its image folder into records ready for training, refusing what would corrupt it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from winnow.data.picture_facts import facts_table
from winnow.errors import DataError
from winnow.families.detection.formats.coco_pictures import find_missing_files
from winnow.families.detection.formats.coco_rules import Rule
from winnow.families.detection.formats.coco_table import CocoTable, read_table
from winnow.families.detection.formats.record_cache import keep_split, kept_split
from winnow.families.detection.formats.records import CocoSplit, Columns, FlatRecords, Texts, ids_of
from winnow.families.detection.rules.file_names import LOOKED_FOR
from winnow.families.detection.rules.label_rules import Reading
from winnow.reading import collector_paused

logger = logging.getLogger(__name__)

# Raise it when the same file and pictures give other records than before, or other words about them.
_READER_VERSION = 2
# What the fingerprint said of a file before it covered the records themselves.
_OLD_READER = "coco1"
_NUM_SHOWN = 5
_SUSPICIOUS_FRACTION = 0.1


def read_coco(annotations: Path, images: Path, reading: Reading | None = None) -> CocoSplit:
    """Read the split that ``annotations`` describes, its file names relative to ``images``, by the rules of ``reading``; what it
    comes to is kept in the cache that ``reading`` names, and mapped into memory from there.

    Harmless faults are repaired and counted; raises DataError listing the entries that would corrupt training (`Rule`
    says which is which), or the image files that are missing.
    """
    annotations, reading = Path(annotations), replace(reading or Reading(), images=Path(images))
    key = key_of(annotations, reading) if reading.cache is not None else None
    split = None
    if reading.cache is not None and key is not None:
        split = kept_split(reading.cache, key, Path(images))
        if split is not None and not _holds(split, reading):
            split = None
    if split is None:
        split = _read(annotations, reading)
        # Which file is meant by another name depends on all files that are there: found anew at each start.
        if reading.cache is not None and key is not None and Rule.OTHER_NAME.label not in split.repairs:
            split = keep_split(split, reading.cache, key, Path(images))
    for doubt in split.doubts:
        logger.warning("%s: %s", annotations, doubt)
    return replace(split, annotations=annotations, reading=reading)


def key_of(annotations: Path, reading: Reading) -> str | None:
    """Return a digest of what the records of a file depend on besides its pictures; None for a file that can't be read."""
    rules = (reading.labels.model_dump_json(), reading.native, reading.exif, reading.knows_pictures)
    try:
        with annotations.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return f"{digest} {_READER_VERSION} {reading.images} {rules}"


def _holds(split: CocoSplit, reading: Reading) -> bool:
    """Tell whether the pictures of a split that was kept are there, and are as they were."""
    assert isinstance(split.records, FlatRecords)
    paths = split.records.paths()
    if find_missing_files(paths):
        return False
    return not reading.knows_pictures or np.array_equal(facts_table(paths, reading.cache), split.pictures)


def _read(annotations: Path, reading: Reading) -> CocoSplit:
    with collector_paused():
        table = read_table(annotations, reading)
        _refuse(table)
        kept = np.flatnonzero(table.image_keep)
        _require_files(table, kept)
        repairs = {
            rule.label: len(rows) for rule, rows in table.violations.items() if rule.repair not in (None, "kept")
        }
        columns = _columns(table, kept)
        return CocoSplit(
            records=FlatRecords(columns, str(reading.images)),
            class_names=table.class_names,
            category_ids=table.category_ids,
            fingerprint=fingerprint_of(columns, table.category_ids, table.class_names),
            repairs=repairs,
            doubts=tuple(_doubts(table, repairs)),
            old_fingerprint=f"{_OLD_READER}-{table.sha256}",
            pictures=table.pictures[kept] if len(table.pictures) else table.pictures,
        )


def read_as_before(split: CocoSplit) -> CocoSplit | None:
    """Return all of the file of ``split`` as it was read before there were rules for odd values; None where it was refused."""
    assert split.annotations is not None
    assert split.reading is not None
    assert split.reading.images is not None
    try:
        return read_coco(split.annotations, split.reading.images, split.reading.before())
    except DataError:
        return None


def fingerprint_of(columns: Columns, category_ids: Sequence[int], class_names: Sequence[str]) -> str:
    """Return a digest of all that training sees of ``columns``, wherever their files lie."""
    sha = hashlib.sha256(repr((list(category_ids), list(class_names))).encode(errors="surrogatepass"))
    images = zip(
        columns.image_ids(), columns.names, columns.sizes.tolist(), np.diff(columns.starts).tolist(), strict=True
    )
    lines = [f"{image_id!r} {os.path.basename(name)} {size[0]} {size[1]} {num}" for image_id, name, size, num in images]
    sha.update("\n".join(lines).encode(errors="surrogatepass"))
    for values in (columns.boxes, columns.labels, columns.areas, columns.crowd):
        sha.update(np.ascontiguousarray(values).tobytes())
    return f"records1-{sha.hexdigest()}"


def _refuse(table: CocoTable) -> None:
    lines = []
    for rule, rows in table.violations.items():
        if rule.is_refused:
            shown = [_describe(table, rule, int(row)) for row in rows[:_NUM_SHOWN]]
            lines.append(f"  {rule.label} ({len(rows)}): {_first(shown, '; ', len(rows))}")
    if table.misfit is not None:
        lines.append(f"  boxes of another convention: {table.misfit}")
    if lines:
        raise DataError(f"{table.path} would corrupt training:\n" + "\n".join(lines))
    if not table.image_keep.any():
        raise DataError(f"{table.path} lists no images")
    if not table.class_names:
        raise DataError(f"{table.path} lists no categories")
    if len(table.keep) and not table.keep.any():
        reasons = ", ".join(f"{rule.label} ({len(rows)})" for rule, rows in table.violations.items() if rule.is_problem)
        raise DataError(f"none of the {len(table.keep)} annotations of {table.path} can be used: {reasons}")


def _require_files(table: CocoTable, kept: np.ndarray) -> None:
    lost = [int(row) for row in kept if int(row) in table.lost]
    if lost:
        shown = [
            table.paths[row] + (f" (may be {_first(table.lost[row], ' or ')})" if table.lost[row] else "")
            for row in lost[:_NUM_SHOWN]
        ]
        looked = f"; {LOOKED_FOR}" if table.reading.mends("file_names") else ""
        raise DataError(
            f"{len(lost)} of {len(kept)} images of {table.path} are not in {table.reading.images}: "
            f"{_first(shown, count=len(lost))}{looked}"
        )
    taken = table.violations.get(Rule.OTHER_NAME)
    if taken is not None:
        shown = [f"{table.file_names[row]!r} is {table.paths[row]}" for row in taken[:_NUM_SHOWN].tolist()]
        logger.info(
            "%s: names of %d images are not as the files are called: %s",
            table.path,
            len(taken),
            _first(shown, count=len(taken)),
        )


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


def _columns(table: CocoTable, kept: np.ndarray) -> Columns:
    rows = np.flatnonzero(table.keep)
    rows = rows[np.argsort(table.image_rows[rows], kind="stable")]
    # Annotations of an image entry that is not kept are not either.
    starts = np.searchsorted(table.image_rows[rows], kept, side="left")
    beginning = os.path.join(str(table.reading.images), "")
    return Columns(
        ids_of([table.image_ids[row] for row in kept.tolist()]),
        Texts.of([table.paths[row].removeprefix(beginning) for row in kept.tolist()]),
        np.stack([table.widths[kept], table.heights[kept]], axis=1),
        np.append(starts, len(rows)).astype(np.int64),
        table.boxes[rows], table.labels[rows], table.areas[rows].astype(np.float32), table.crowd[rows],
    )  # fmt: skip
