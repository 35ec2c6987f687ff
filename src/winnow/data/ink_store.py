"""Tiles in a file: made once, by one process, and only read from then on."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from winnow.data.ink_tiles import InkTiles
from winnow.errors import DataError

logger = logging.getLogger(__name__)


def stored_tiles(path: Path, make: Callable[[], InkTiles]) -> InkTiles:
    """The tiles in ``path`` (.npz), made first where it is not there yet. DataError where it can't be read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            if not path.exists():
                _write(path, make())
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return InkTiles(**{name: arrays[name] for name in arrays.files if name != "has_full_labels"},
                            has_full_labels=bool(arrays["has_full_labels"]))  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read: {error}; delete it to have it made again") from error


def _write(path: Path, tiles: InkTiles) -> None:
    logger.info("making %d tiles, kept in %s", len(tiles), path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **vars(tiles))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
