"""Reads a COCO data set whole, every image decoded, and lists what is wrong with it by file and annotation id."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from winnow.data.check import DataReport, Finding, Progress, SplitProgress, SplitReport
from winnow.data.image import ImageSizeError, read_image
from winnow.errors import DataError
from winnow.families.detection.formats.bdd100k import find_bdd100k
from winnow.families.detection.formats.coco import category_differences, find_missing_files
from winnow.families.detection.formats.coco_table import CocoTable, read_table
from winnow.families.detection.formats.digits import make_digits
from winnow.families.detection.settings import Bdd100kNode, CocoNode, DigitsNode

# Decoding and hashing release the interpreter lock, so threads suffice.
_MAX_THREADS = 8


@dataclass(frozen=True, eq=False)
class CheckReport(SplitReport):
    """What ``check_split`` found; besides, by file name each image's hash."""

    categories: dict[int, str]
    hashes: dict[str, str] = field(repr=False)
    file_names: frozenset[str] = field(repr=False)


def check_coco(settings: CocoNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=coco``."""
    parts = {"train": settings.train, "val": settings.val}
    named = {split: part for split, part in parts.items() if part is not None and part.annotations is not None}
    return check_splits(
        {split: (Path(str(part.annotations)), Path(str(part.images))) for split, part in named.items()}, progress
    )


def check_bdd100k(settings: Bdd100kNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=bdd100k``, converted first where they are not."""
    return check_splits(find_bdd100k(Path(settings.root), Path(settings.cache)), progress)


def check_digits(settings: DigitsNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=digits``, made first where they are not there."""
    folder = make_digits(Path(settings.root), settings)
    return check_splits(
        {split: (folder / f"annotations/instances_{split}.json", folder / split) for split in ("train", "val")},
        progress,
    )


def check_splits(splits: Mapping[str, tuple[Path, Path]], progress: SplitProgress) -> DataReport:
    """Check each split, (annotation file, folder of its images), and train against val where both are there."""
    reports = {split: check_split(*paths, partial(progress, split)) for split, paths in splits.items()}
    return DataReport(reports, compare_splits(*reports.values()) if len(reports) == 2 else ())


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
        categories=dict(zip(table.category_ids, table.class_names, strict=True)),
        findings=tuple(found),
        hashes=hashes,
        file_names=frozenset(table.file_names),
    )


def compare_splits(train: CheckReport, val: CheckReport) -> tuple[Finding, ...]:
    """Return images that are in both splits, by content, and differences of their categories.

    An equal name with other content is listed as no problem: many data sets number the images of each split anew.
    """
    found = [
        Finding("categories differ", "", None, line) for line in category_differences(train.categories, val.categories)
    ]
    train_file_of = {digest: name for name, digest in train.hashes.items()}
    same = {name: train_file_of[digest] for name, digest in val.hashes.items() if digest in train_file_of}
    found += [
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
