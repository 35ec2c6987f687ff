"""Finds the files that a COCO file's images are, and what they say that the file does not: their sizes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from winnow.data.picture_facts import facts_table
from winnow.families.detection.formats.coco_rules import Rule
from winnow.families.detection.rules.file_names import find_names
from winnow.families.detection.rules.sizes import size_of

if TYPE_CHECKING:
    from winnow.families.detection.formats.coco_table import CocoTable


def look_at_pictures(
    table: CocoTable, sizes: np.ndarray, is_known: np.ndarray, rows_of: Mapping[Rule, set[int]]
) -> np.ndarray:
    """Return ``sizes`` (N, 2), (0, 0) where the file does not say, with those that the pictures give where ``is_known`` says that
    an image has a name and its size may be one; put their ``paths`` and facts into ``table``. What was mended goes into
    ``rows_of``."""
    reading = table.reading
    assert reading.images is not None
    _find_files(table, reading.images, rows_of)
    if not reading.knows_pictures:
        return sizes
    table.pictures = facts_table(table.paths, reading.cache)
    if not reading.mends("sizes"):
        return sizes
    settled = sizes.copy()
    stored, orientations = table.pictures[:, :2], table.pictures[:, 2]
    is_plain = (sizes == stored).all(axis=1) & (orientations == 1)
    for row in np.flatnonzero(is_known & ~is_plain & (stored > 0).all(axis=1)).tolist():
        width, height = sizes[row].tolist()
        own = size_of((width, height), table.picture(row), reading.exif)
        if own != (width, height):
            rows_of[Rule.NO_SIZE if 0 in (width, height) else Rule.EXCHANGED_SIZE].add(row)
        settled[row] = own
    return settled


def paths_below(folder: str, names: Iterable[str]) -> list[str]:
    """Return ``os.path.join`` of the folder and each name, many times faster; empty for an empty name."""
    beginning = os.path.join(folder, "")
    return ["" if not name else name if name.startswith(os.sep) else beginning + name for name in names]


def find_missing_files(paths: Sequence[str]) -> list[str]:
    """Return those of ``paths`` that do not exist, in order; list each folder once instead of asking for each file."""
    listings: dict[str, frozenset[str]] = {}
    missing = []
    for path in paths:
        end = path.rfind(os.sep) + 1
        folder = path[:end]
        names = listings.get(folder)
        if names is None:
            names = listings[folder] = _file_names(folder)
        if path[end:] not in names:
            missing.append(path)
    return missing


def _find_files(table: CocoTable, images: Path, rows_of: Mapping[Rule, set[int]]) -> None:
    table.paths = paths_below(str(images), table.file_names)
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
