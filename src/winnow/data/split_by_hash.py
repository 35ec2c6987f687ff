"""Splits pictures by their bytes: a picture's side depends on it alone, so files that are added move none, and equal ones stay
together."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from winnow.data.array_file import map_arrays, write_arrays
from winnow.errors import DataError

logger = logging.getLogger(__name__)

# Hashing releases the interpreter lock, and waits for the disk.
_MAX_THREADS = 8
_MANY = 1000


def places_of(paths: Sequence[str], cache: Path | None) -> np.ndarray:
    """Return (N,) float64 in [0, 1), for each picture a place by its bytes, evenly spread.

    Digests are kept in ``cache``, if any, by path, size and time: a picture is read once. Raises DataError for one that can't be
    read.
    """
    if cache is None:
        return _places(_read_all(paths))
    file = cache / "pictures.bin"
    keys = np.array([_key(path) for path in paths], dtype=np.uint64)
    known_keys, known = _kept(file)
    rows = np.minimum(np.searchsorted(known_keys, keys), max(len(known_keys) - 1, 0))
    is_known = known_keys[rows] == keys if len(known_keys) else np.zeros(len(keys), bool)
    digests = np.zeros(len(keys), np.uint64)
    digests[is_known] = known[rows[is_known]]
    new = np.flatnonzero(~is_known)
    if len(new):
        digests[new] = _read_all([paths[row] for row in new.tolist()])
        _keep(file, np.concatenate([known_keys, keys[new]]), np.concatenate([known, digests[new]]))
    return _places(digests)


def place_of(sha256: str) -> float:
    """Return the place of a picture by the hash of its bytes (hex)."""
    return float(_places(np.array([int.from_bytes(bytes.fromhex(sha256[:16]), "little")], dtype=np.uint64))[0])


def _places(digests: np.ndarray) -> np.ndarray:
    # 53 bits: more would round up to 1.
    return (digests >> np.uint64(11)).astype(np.float64) / 2**53


def _key(path: str) -> int:
    """Return what a picture is known by while it does not change."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"image {path} can't be read: {error.strerror}") from error
    state = f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
    return int.from_bytes(hashlib.blake2b(state.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _read_all(paths: Sequence[str]) -> np.ndarray:
    if len(paths) >= _MANY:
        logger.info("reading %d images once, to split them by their bytes", len(paths))
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        return np.array(list(pool.map(_digest, paths, chunksize=64)), dtype=np.uint64)


def _digest(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return int.from_bytes(hashlib.file_digest(file, "sha256").digest()[:8], "little")
    except OSError as error:
        raise DataError(f"image {path} can't be read: {error.strerror}") from error


def _kept(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the digests in ``file`` and what they are known by, which ascends."""
    try:
        _, arrays = map_arrays(file)
        return arrays["keys"], arrays["digests"]
    except (DataError, OSError, KeyError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("what was kept of images is made anew: %s", error)
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)


def _keep(file: Path, keys: np.ndarray, digests: np.ndarray) -> None:
    keys, first = np.unique(keys, return_index=True)
    try:
        write_arrays(file, {}, {"keys": keys, "digests": digests[first]})
    except OSError as error:
        logger.warning("images are read anew at each start, for data.cache can't be written to: %s", error)
