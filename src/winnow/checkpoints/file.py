"""One checkpoint file: written so that a kill leaves the old one or the new one, read so that damage is noticed and nothing in
it is executed."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from winnow.checkpoints.bounds import ODD_BYTES, require_bounded, require_inert_bytes, require_stored
from winnow.checkpoints.references import VERSION as VERSION_WITH_REFERENCES
from winnow.checkpoints.seal import COMMENT_LENGTH, MARK, verify
from winnow.errors import CheckpointError
from winnow.reading import UnreadableError
from winnow.run_folder import sync_folder, unfinished_name

logger = logging.getLogger(__name__)

VERSION = 1
KEYS = (
    "version", "epoch", "step", "model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "scaler_state_dict",
    "ema_state_dict", "rng", "metric", "metrics", "best", "config", "classes", "metadata", "timestamp", "progress",
)  # fmt: skip


def write_checkpoint(path: Path, checkpoint: dict[str, Any], before: Sequence[Path] = ()) -> None:
    """Write beside ``path``, sync to disk, then rename; raises OSError and leaves the old file as it was.

    The same file gets the names ``before`` as well, in their order and before ``path``, without being written again.
    """
    unfinished = unfinished_name(path)
    try:
        with unfinished.open("xb") as file:
            _save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        for name in before:
            _publish_also(unfinished, name)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left in ``folder``, which no other process may be writing to."""
    for path in folder.glob(".*.pth.*.tmp"):
        path.unlink(missing_ok=True)
        logger.info("removed %s: its writer was killed", path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the verified content, on the CPU.

    Raises CheckpointError for a file that is missing, damaged, of a newer version or not a winnow checkpoint; code in a
    file is never run (``weights_only``).
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    verify(path)
    try:
        require_inert_bytes(path)
        with zipfile.ZipFile(path) as archive:
            require_stored(path, archive)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        require_bounded(checkpoint, path)
    except UnreadableError as error:
        raise CheckpointError(f"{path} can't be read as a checkpoint: {error}") from error
    except pickle.UnpicklingError as error:
        # torch's own message advises to run whatever code the file holds.
        raise CheckpointError(f"{path} can't be read as a checkpoint: it holds code, which is never run") from error
    except ODD_BYTES as error:
        first = (str(error).splitlines() or [""])[0][:500]
        raise CheckpointError(f"{path} can't be read as a checkpoint: {first or type(error).__name__}") from error
    version = checkpoint.get("version") if isinstance(checkpoint, dict) else None
    if type(version) is not int or version not in (VERSION, VERSION_WITH_REFERENCES):
        raise CheckpointError(
            f"{path} has version {version!r:.60}; this winnow reads versions {VERSION} and {VERSION_WITH_REFERENCES}"
        )
    missing = [key for key in KEYS if key not in checkpoint]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    return checkpoint


class _HashedFile:
    """Passes on what torch.save writes, from front to back, and hashes all of it but the last two bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file = file
        self._sha = hashlib.sha256()
        self._held_back = b""

    def write(self, data: bytes | memoryview) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        size = len(data)
        if size < 2:
            data, self._held_back = self._held_back + bytes(data), b""
        self._sha.update(self._held_back)
        self._sha.update(data[:-2])
        self._held_back = bytes(data[-2:])
        return size

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        """Put the checksum where the length of the zip's comment, two zero bytes, stands at the end."""
        self._file.seek(-2, os.SEEK_END)
        self._file.write(COMMENT_LENGTH.to_bytes(2, "little") + MARK + self._sha.hexdigest().encode())


def _save(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    hashed = _HashedFile(file)
    try:
        torch.save(checkpoint, cast(BinaryIO, hashed))  # it only writes and flushes
    except RuntimeError:
        if hashed.error is None:
            raise
        raise hashed.error from None  # torch tells of a position in the zip, not of the full disk
    hashed.seal()


def _publish_also(written: Path, path: Path) -> None:
    unfinished = unfinished_name(path)
    try:
        link_or_copy(written, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, or a synced copy on a filesystem that has none."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
