"""Keeps what an annotation file comes to, so that it is parsed once: arrays in a file, mapped into memory by all who read it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from winnow.data.array_file import map_arrays, write_arrays
from winnow.errors import DataError
from winnow.families.detection.formats.records import CocoSplit, FlatRecords, arrays_of, columns_from
from winnow.reading import NOT_READ, reason

logger = logging.getLogger(__name__)

# Raise it when the columns mean something else than before.
_LAYOUT = 1


class MappedRecords(FlatRecords):
    """Records whose columns are the bytes of ``file``: processes share them, and one that is started anew maps them again."""

    def __init__(self, file: Path, folder: str) -> None:
        self.file = file
        self.header, arrays = map_arrays(file)
        super().__init__(columns_from(arrays), folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedRecords, (self.file, self.folder)


def kept_split(cache: Path, key: str, images: Path) -> CocoSplit | None:
    """Return the split that is kept in ``cache`` under ``key``, its images in the folder ``images``; None where there is none
    that can be read."""
    path = _path(cache, key)
    try:
        records = MappedRecords(path, str(images))
        split = records.header["split"]
        return CocoSplit(
            records, tuple(split["class_names"]), tuple(split["category_ids"]), split["fingerprint"], split["repairs"],
            tuple(split["doubts"]),
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except (DataError, OSError, *NOT_READ) as error:
        logger.warning("what was kept of annotations is made anew: %s", reason(error))
        return None


def keep_split(split: CocoSplit, cache: Path, key: str, images: Path) -> CocoSplit:
    """Keep ``split``, whose records are ``FlatRecords``, and return it as it is kept; as it is where ``cache`` can't be written
    to."""
    assert isinstance(split.records, FlatRecords)
    path = _path(cache, key)
    about = {
        "class_names": split.class_names, "category_ids": split.category_ids, "fingerprint": split.fingerprint,
        "repairs": split.repairs, "doubts": split.doubts,
    }  # fmt: skip
    try:
        write_arrays(path, {"split": about}, arrays_of(split.records.columns))
    except OSError as error:
        logger.warning("annotations are read anew at each start, for data.cache can't be written to: %s", error)
        return split
    return kept_split(cache, key, images) or split


def _path(cache: Path, key: str) -> Path:
    return cache / f"records_{hashlib.sha256(f'{_LAYOUT} {key}'.encode()).hexdigest()[:32]}.bin"
