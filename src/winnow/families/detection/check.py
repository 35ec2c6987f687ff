"""Reads a COCO data set whole, every image decoded, and lists what is wrong with it by file and annotation id."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from winnow.data.check import DataReport, Finding, Progress, SplitProgress, SplitReport
from winnow.data.grey_levels import LevelsLeft
from winnow.data.image import SAME_SIZE_TURNS, ImageSizeError, levels_of, read_image
from winnow.data.picture_facts import PictureFacts
from winnow.data.pixel_rule import PixelRule
from winnow.errors import DataError
from winnow.families.detection.check_classes import SplitClasses, absent_classes, foreign_classes, objects_in_parts
from winnow.families.detection.exif_pictures import draw_both_ways
from winnow.families.detection.formats.bdd100k import find_bdd100k
from winnow.families.detection.formats.coco_table import CocoTable, read_table
from winnow.families.detection.formats.digits import make_digits
from winnow.families.detection.held_out import require_no_val
from winnow.families.detection.picture_report import levels_words, turn_of
from winnow.families.detection.rules.label_rules import COCO_BOXES, CORNERS, Reading
from winnow.families.detection.settings import (
    Bdd100kNode,
    ChosenSettings,
    CocoNode,
    DigitsNode,
    HeldOutSettings,
    VocNode,
    YoloNode,
)
from winnow.families.detection.sources import find_coco, find_voc, find_yolo, yolo_boxes

# Decoding and hashing release the interpreter lock, so threads suffice.
_MAX_THREADS = 8
_NUM_DRAWN = 3
USUAL = PixelRule(exif="auto", mends_ends=True)
"""What holds where no data set's keys say how pixels are taken."""


@dataclass(frozen=True, eq=False)
class CheckReport(SplitReport):
    """What ``check_split`` found; besides, by file name each image's hash, and its classes."""

    classes: SplitClasses = field(repr=False)
    hashes: dict[str, str] = field(repr=False)
    file_names: frozenset[str] = field(repr=False)


def check_coco(settings: CocoNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=coco``."""
    return check_splits(find_coco(settings), progress, settings.reading(COCO_BOXES), settings)


def check_bdd100k(settings: Bdd100kNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=bdd100k``, converted first where they are not."""
    splits = find_bdd100k(Path(settings.root), Path(settings.cache))
    return check_splits(splits, progress, settings.reading(CORNERS), settings)


def check_digits(settings: DigitsNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=digits``, made first where they are not there."""
    folder = make_digits(Path(settings.root), settings)
    return check_splits(
        {split: (folder / f"annotations/instances_{split}.json", folder / split) for split in ("train", "val")},
        progress,
    )


def check_voc(settings: VocNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=voc``, converted first where they are not."""
    return check_splits(find_voc(settings), progress, settings.reading(CORNERS), settings)


def check_yolo(settings: YoloNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=yolo``, converted first where they are not."""
    return check_splits(find_yolo(settings), progress, settings.reading(yolo_boxes(settings)), settings)


def check_splits(
    splits: Mapping[str, tuple[Path, Path]],
    progress: SplitProgress,
    reading: Reading | None = None,
    settings: ChosenSettings | None = None,
) -> DataReport:
    """Check each split, (annotation file, folder of its images), and train against val where both are there; ``settings`` choose
    classes, what is held out of train, and how pixels are taken. Raises ConfigError where they name what is not there."""
    if isinstance(settings, HeldOutSettings):
        require_no_val(splits, settings)
    rule = USUAL if settings is None else settings.pixel_rule
    reports = {split: check_split(*paths, partial(progress, split), reading, rule) for split, paths in splits.items()}
    classes = {split: report.classes for split, report in reports.items()}
    objects = objects_in_parts(classes, settings)
    absent = absent_classes(objects)
    between = [
        *foreign_classes(classes, settings),
        *(found for part in absent if part not in reports for found in absent[part]),
    ]
    if len(reports) == 2:
        between += compare_splits(*reports.values())
    return DataReport(
        {split: replace(report, findings=(*report.findings, *absent[split])) for split, report in reports.items()},
        tuple(between),
        objects,
    )


def check_split(
    annotations: Path,
    images: Path,
    progress: Progress | None = None,
    reading: Reading | None = None,
    rule: PixelRule = USUAL,
) -> CheckReport:
    """Check one annotation file and all its images; ``progress`` is called with (images done, images in all).

    What training would refuse or repair is found by the same rules as in ``read_coco``. Raises DataError if the
    annotation file is not a COCO file at all.
    """
    table = read_table(annotations, replace(reading or Reading(exif=rule.exif), images=images))
    found = list(_entry_findings(table))
    if table.misfit is not None:
        found.append(Finding("boxes of another convention", "", None, table.misfit))
    hashes: dict[str, str] = {}
    rows = np.flatnonzero(table.image_keep).tolist()
    for done, (row, findings, digest) in enumerate(_image_findings(table, rows, images, rule), start=1):
        found += findings
        if digest is not None:
            hashes[table.file_names[row]] = digest
        if progress is not None:
            progress(done, len(rows))
    found += _drawn_both_ways(table, rule)
    return CheckReport(
        annotations=annotations,
        num_images=len(table.image_ids),
        num_annotations=len(table.keep),
        classes=SplitClasses.of(table, hashes),
        findings=tuple(found),
        hashes=hashes,
        file_names=frozenset(table.file_names),
    )


def compare_splits(train: CheckReport, val: CheckReport) -> tuple[Finding, ...]:
    """Return images that are in both splits, by content.

    An equal name with other content is listed as no problem: many data sets number the images of each split anew.
    """
    train_file_of = {digest: name for name, digest in train.hashes.items()}
    same = {name: train_file_of[digest] for name, digest in val.hashes.items() if digest in train_file_of}
    found = [
        Finding("same image in train and val", name, None, f"same content as {other} in train")
        for name, other in same.items()
    ]
    found += [
        Finding("same file name in train and val", name, None, "", is_problem=False)
        for name in sorted((train.file_names & val.file_names) - same.keys() - {""})
    ]
    return tuple(found)


def _entry_findings(table: CocoTable) -> Iterator[Finding]:
    for rule, rows in table.violations.items():
        # Left-out optional fields are no fault, and there can be one in every annotation.
        if rule.repair == "filled":
            continue
        for row in rows.tolist():
            number = table.id_of(rule, row)
            is_annotation = rule.table == "annotations"
            detail = table.detail(rule, row)
            if not is_annotation:
                detail = f"{rule.table.removesuffix('s')} id {number}, {detail}".rstrip(", ")
            file, annotation = table.file_of(rule, row), number if is_annotation else None
            yield Finding(rule.label, file, annotation, detail, rule.is_problem)


def _image_findings(
    table: CocoTable, rows: list[int], images: Path, rule: PixelRule
) -> Iterator[tuple[int, list[Finding], str | None]]:
    def look(row: int) -> tuple[int, list[Finding], str | None]:
        name, path = table.file_names[row], Path(table.paths[row])
        if row in table.lost:
            may_be = f"; may be {' or '.join(table.lost[row])}" if table.lost[row] else ""
            return row, [Finding("missing image", name, None, f"not in {images}{may_be}")], None
        size = int(table.widths[row]), int(table.heights[row])
        findings = list(_pixel_findings(name, path, size, table.picture(row), rule))
        return row, findings, _digest(path)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(look, rows)


def _pixel_findings(
    name: str, path: Path, size: tuple[int, int], picture: PictureFacts, rule: PixelRule
) -> Iterator[Finding]:
    try:
        read_image(path, *size, rule)
        left = levels_of(path, rule) if picture.bits > 8 else None
    except ImageSizeError as error:
        yield Finding("size mismatch", name, None, str(error))
        return
    except DataError as error:
        yield Finding("unreadable image", name, None, str(error))
        return
    yield from picture_notes(name, size, picture, rule, left)


def picture_notes(
    name: str, size: tuple[int, int], picture: PictureFacts, rule: PixelRule, left: LevelsLeft | None
) -> Iterator[Finding]:
    """Give what is worth knowing of a picture that could be read as ``rule`` says, ``left`` what it leaves of 16 bits."""
    if left is not None:
        yield Finding("16 bits", name, None, levels_words(left, rule), is_problem=left.are_few)
    if not picture.has_end:
        yield Finding("JPEG without its end", name, None, "nearly all of it is there, and is read")
    if picture.orientation != 1:
        turn = turn_of(picture, *size, rule.exif)
        done = "turned" if turn != 1 else "not turned"
        kind = (
            "EXIF orientation of the same size"
            if picture.orientation in SAME_SIZE_TURNS
            else "EXIF orientation by a quarter"
        )
        yield Finding(
            kind, name, None, f"orientation {picture.orientation}: {done} (data.exif={rule.exif})", is_problem=False
        )


def _drawn_both_ways(table: CocoTable, rule: PixelRule) -> list[Finding]:
    """Draw the first images whose EXIF orientation keeps their size as stored and as shown, where there is a place for it."""
    if not len(table.pictures):
        return []
    is_turned = np.isin(table.pictures[:, 2], SAME_SIZE_TURNS) & table.image_keep
    turned = [row for row in np.flatnonzero(is_turned).tolist() if row not in table.lost]
    if not turned or table.reading.cache is None:
        return []
    path = table.reading.cache / f"exif_{table.path.stem}.png"
    try:
        draw_both_ways(table, turned[:_NUM_DRAWN], rule, path)
    except (DataError, OSError) as error:
        return [Finding("EXIF orientations not drawn", str(path), None, str(error), is_problem=False)]
    words = f"{min(len(turned), _NUM_DRAWN)} of {len(turned)}, as stored and as shown; data.exif=never where boxes fit the former"
    return [Finding("EXIF orientations drawn", str(path), None, words, is_problem=False)]


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
