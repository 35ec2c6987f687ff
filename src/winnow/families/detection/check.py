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
from winnow.data.image import ImageSizeError, read_image
from winnow.errors import DataError
from winnow.families.detection.check_classes import SplitClasses, absent_classes, foreign_classes, objects_in_parts
from winnow.families.detection.formats.bdd100k import find_bdd100k
from winnow.families.detection.formats.coco import find_missing_files
from winnow.families.detection.formats.coco_table import CocoTable, read_table
from winnow.families.detection.formats.digits import make_digits
from winnow.families.detection.held_out import require_no_val
from winnow.families.detection.settings import (
    Bdd100kNode,
    ChosenSettings,
    CocoNode,
    DigitsNode,
    HeldOutSettings,
    VocNode,
    YoloNode,
)
from winnow.families.detection.sources import find_coco, find_voc, find_yolo

# Decoding and hashing release the interpreter lock, so threads suffice.
_MAX_THREADS = 8


@dataclass(frozen=True, eq=False)
class CheckReport(SplitReport):
    """What ``check_split`` found; besides, by file name each image's hash, and its classes."""

    classes: SplitClasses = field(repr=False)
    hashes: dict[str, str] = field(repr=False)
    file_names: frozenset[str] = field(repr=False)


def check_coco(settings: CocoNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=coco``."""
    return check_splits(find_coco(settings), progress, settings)


def check_bdd100k(settings: Bdd100kNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=bdd100k``, converted first where they are not."""
    return check_splits(find_bdd100k(Path(settings.root), Path(settings.cache)), progress, settings)


def check_digits(settings: DigitsNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=digits``, made first where they are not there."""
    folder = make_digits(Path(settings.root), settings)
    return check_splits(
        {split: (folder / f"annotations/instances_{split}.json", folder / split) for split in ("train", "val")},
        progress,
    )


def check_voc(settings: VocNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=voc``, converted first where they are not."""
    return check_splits(find_voc(settings), progress, settings)


def check_yolo(settings: YoloNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=yolo``, converted first where they are not."""
    return check_splits(find_yolo(settings), progress, settings)


def check_splits(
    splits: Mapping[str, tuple[Path, Path]], progress: SplitProgress, settings: ChosenSettings | None = None
) -> DataReport:
    """Check each split, (annotation file, folder of its images), and train against val where both are there; ``settings`` choose
    classes and what is held out of train. Raises ConfigError where they name what is not there."""
    if isinstance(settings, HeldOutSettings):
        require_no_val(splits, settings)
    reports = {split: check_split(*paths, partial(progress, split)) for split, paths in splits.items()}
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


def check_split(annotations: Path, images: Path, progress: Progress | None = None) -> CheckReport:
    """Check one annotation file and all its images; ``progress`` is called with (images done, images in all).

    What training would refuse or repair is found by the same rules as in ``read_coco``. Raises DataError if the
    annotation file is not a COCO file at all.
    """
    table = read_table(annotations)
    found = list(_entry_findings(table))
    hashes: dict[str, str] = {}
    rows = np.flatnonzero(table.image_keep).tolist()
    for done, (row, finding, digest) in enumerate(_image_findings(table, rows, images), start=1):
        if finding is not None:
            found.append(finding)
        if digest is not None:
            hashes[table.file_names[row]] = digest
        if progress is not None:
            progress(done, len(rows))
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
    table: CocoTable, rows: list[int], images: Path
) -> Iterator[tuple[int, Finding | None, str | None]]:
    paths = {row: os.path.join(images, table.file_names[row]) for row in rows}
    missing = set(find_missing_files(list(paths.values())))

    def look(row: int) -> tuple[int, Finding | None, str | None]:
        name, path = table.file_names[row], Path(paths[row])
        if paths[row] in missing:
            return row, Finding("missing image", name, None, f"not in {images}"), None
        kind, detail = _decode(path, int(table.widths[row]), int(table.heights[row]))
        return row, None if kind is None else Finding(kind, name, None, detail), _digest(path)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(look, rows)


def _decode(path: Path, width: int, height: int) -> tuple[str | None, str]:
    try:
        read_image(path, width, height)
    except ImageSizeError as error:
        return "size mismatch", str(error)
    except DataError as error:
        return "unreadable image", str(error)
    return None, ""


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
