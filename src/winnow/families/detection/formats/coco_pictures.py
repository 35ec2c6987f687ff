"""Finds the files that a COCO file's images are, and what they say that the file does not: their sizes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from winnow.data.picture_facts import facts_of
from winnow.families.detection.formats.coco_rules import Rule
from winnow.families.detection.rules.file_names import find_names
from winnow.families.detection.rules.sizes import Size, size_of

if TYPE_CHECKING:
    from winnow.families.detection.formats.coco_table import CocoTable

ImageFields = tuple[int | str | None, str, Size | None]
"""Id, file name and (width, height) of an image, (0, 0) where the file does not say; None and "" for what can't be used."""


def look_at_pictures(
    table: CocoTable, fields: Sequence[ImageFields], rows_of: Mapping[Rule, set[int]]
) -> list[ImageFields]:
    """Return ``fields`` with the sizes that the pictures give, and put their ``paths`` and facts into ``table``; what was mended
    goes into ``rows_of``."""
    reading = table.reading
    assert reading.images is not None
    _find_files(table, reading.images, rows_of)
    if not reading.knows_pictures:
        return list(fields)
    table.pictures = facts_of(table.paths, reading.cache)
    if not reading.mends("sizes"):
        return list(fields)
    settled = []
    for row, (image_id, name, size) in enumerate(fields):
        own = size if size is None or not name else size_of(size, table.pictures[row], reading.exif)
        if own != size and size is not None:
            rows_of[Rule.NO_SIZE if 0 in size else Rule.EXCHANGED_SIZE].add(row)
        settled.append((image_id, name, own))
    return settled


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


def _find_files(table: CocoTable, images: Path, rows_of: Mapping[Rule, set[int]]) -> None:
    table.paths = [os.path.join(images, name) if name else "" for name in table.file_names]
    missing = set(find_missing_files([path for path in table.paths if path]))
    if not missing or not table.reading.mends("file_names"):
        table.lost = {row: () for row, path in enumerate(table.paths) if path in missing}
        return
    names = [name for name, path in zip(table.file_names, table.paths, strict=True) if path in missing]
    used = [os.path.relpath(path, images) for path in table.paths if path and path not in missing]
    found = find_names(names, images, used)
    for row, name in enumerate(table.file_names):
        if name in found.taken:
            table.paths[row] = os.path.join(images, found.taken[name])
            rows_of[Rule.OTHER_NAME].add(row)
        elif name in found.lost:
            table.lost[row] = found.lost[name]


def _file_names(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_dir())
    except (OSError, ValueError):  # not there, or a name that no folder can have
        return frozenset()
