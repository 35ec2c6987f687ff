"""Turns a COCO annotation file and its image folder into records ready for training, refusing what would corrupt it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from winnow.data.picture_facts import PictureFacts
from winnow.errors import DataError
from winnow.families.detection.formats.coco_rules import Rule
from winnow.families.detection.formats.coco_table import CocoTable, read_table
from winnow.families.detection.rules.file_names import LOOKED_FOR
from winnow.families.detection.rules.label_rules import Reading

logger = logging.getLogger(__name__)

# What the fingerprint said of a file before it covered the records themselves.
_OLD_READER = "coco1"
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

    ``fingerprint`` covers the records; ``repairs`` counts what was mended or dropped, by kind. Of a file: how it was read
    (``reading``, None where records were made otherwise), its own ``sha256``, the facts of its ``pictures`` in the order of the
    records, empty where they were not looked at.
    """

    records: tuple[ImageRecord, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    fingerprint: str
    repairs: Mapping[str, int]
    annotations: Path | None = None
    reading: Reading | None = None
    sha256: str = ""
    pictures: tuple[PictureFacts, ...] = ()

    @property
    def old_fingerprint(self) -> str:
        """Return what stood for the split before fingerprints covered the records."""
        return f"{_OLD_READER}-{self.sha256}" if self.sha256 else self.fingerprint


def read_coco(annotations: Path, images: Path, reading: Reading | None = None) -> CocoSplit:
    """Read the split that ``annotations`` describes, its file names relative to ``images``, by the rules of ``reading``.

    Harmless faults are repaired and counted; raises DataError listing the entries that would corrupt training (`Rule`
    says which is which), or the image files that are missing.
    """
    annotations, reading = Path(annotations), replace(reading or Reading(), images=Path(images))
    table = read_table(annotations, reading)
    _refuse(table)
    kept = np.flatnonzero(table.image_keep)
    _require_files(table, kept)
    repairs = {rule.label: len(rows) for rule, rows in table.violations.items() if rule.repair not in (None, "kept")}
    _log_doubts(table, repairs)
    records = _records(table, kept)
    return CocoSplit(
        records=records,
        class_names=table.class_names,
        category_ids=table.category_ids,
        fingerprint=fingerprint_of(records, table.category_ids, table.class_names),
        repairs=repairs,
        annotations=annotations,
        reading=reading,
        sha256=table.sha256,
        pictures=tuple(table.pictures[row] for row in kept.tolist()) if table.pictures else (),
    )


def read_as_before(split: CocoSplit) -> CocoSplit | None:
    """Return ``split`` as it was read before there were rules for odd values; None where it was refused."""
    assert split.annotations is not None
    assert split.reading is not None
    assert split.reading.images is not None
    try:
        return read_coco(split.annotations, split.reading.images, split.reading.before())
    except DataError:
        return None


def fingerprint_of(records: Sequence[ImageRecord], category_ids: Sequence[int], class_names: Sequence[str]) -> str:
    """Return a digest of all that training sees of ``records``, wherever their files lie."""
    sha = hashlib.sha256(repr((list(category_ids), list(class_names))).encode(errors="surrogatepass"))
    lines = [
        f"{record.image_id!r} {record.path.name} {record.width} {record.height} {len(record.labels)}"
        for record in records
    ]
    sha.update("\n".join(lines).encode(errors="surrogatepass"))
    for name in ("boxes", "labels", "areas", "crowd"):
        sha.update(b"".join(getattr(record, name).tobytes() for record in records))
    return f"records1-{sha.hexdigest()}"


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


def _records(table: CocoTable, kept: np.ndarray) -> tuple[ImageRecord, ...]:
    rows = np.flatnonzero(table.keep)
    rows = rows[np.argsort(table.image_rows[rows], kind="stable")]
    boxes, labels = table.boxes[rows], table.labels[rows]
    areas, crowd = table.areas[rows].astype(np.float32), table.crowd[rows]
    starts = np.searchsorted(table.image_rows[rows], kept, side="left")
    ends = np.searchsorted(table.image_rows[rows], kept, side="right")
    return tuple(
        ImageRecord(
            image_id=table.image_ids[row],
            path=Path(table.paths[row]),
            width=int(table.widths[row]),
            height=int(table.heights[row]),
            boxes=boxes[start:end],
            labels=labels[start:end],
            areas=areas[start:end],
            crowd=crowd[start:end],
        )
        for row, start, end in zip(kept.tolist(), starts.tolist(), ends.tolist(), strict=True)
    )
