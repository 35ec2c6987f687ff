"""Tiles and strips in files: made once, by one process, and only read from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock

from winnow.errors import DataError
from winnow.reading import read_arrays
from winnow.run_folder import whole_file

logger = logging.getLogger(__name__)

T = TypeVar("T")


def stored(path: Path, kind: Callable[..., T], make: Callable[[], T]) -> T:
    """Return what lies in ``path`` (.npz), made first if it is not there yet: a ``kind`` whose attributes, arrays or
    plain values, are its arguments. Raises DataError if the file can't be read.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            if not path.exists():
                _write(path, vars(make()))
    try:
        values = read_arrays(path, DataError)
        return kind(**{name: value if value.ndim else value.item() for name, value in values.items()})
    except (DataError, TypeError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}; delete it to have it made again") from error


def _write(path: Path, values: dict[str, Any]) -> None:
    logger.info("keeping %s", path)
    with whole_file(path) as file:
        np.savez(file, **values)
