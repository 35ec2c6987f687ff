"""How a checkpoint of winnow's is told from any other file, and a whole one from a damaged one: the mark and checksum at its
end. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from winnow.errors import CheckpointError

# torch.save ends its zip with an empty comment; the checksum becomes that comment, so the file stays an ordinary .pth.
MARK = b"winnow sha256 "
COMMENT_LENGTH = len(MARK) + hashlib.sha256().digest_size * 2
_CHUNK = 1 << 22

OWN_NAME = re.compile(r"(last|best|checkpoint_epoch_\d+)\.pth")
"""What a run calls its checkpoints."""


def is_sealed(path: Path) -> bool:
    """Return whether a file ends as winnow's checkpoints do, whole or not."""
    if not path.is_file() or path.stat().st_size < COMMENT_LENGTH:
        return False
    with path.open("rb") as file:
        file.seek(-COMMENT_LENGTH, os.SEEK_END)
        return file.read(len(MARK)) == MARK


def is_of_winnow(path: Path) -> bool:
    """Return whether a file is a checkpoint of winnow's. One that lost its end is, where a whole one lies beside it: no
    other program's ``last.pth`` lies in such a folder.
    """
    if is_sealed(path):
        return True
    is_named_so = path.is_file() and OWN_NAME.fullmatch(path.name) is not None
    return is_named_so and any(map(is_sealed, path.parent.glob("*.pth")))


def run_folder_of(path: Path) -> Path | None:
    """Return the run folder that a checkpoint of winnow's lies in; None for any other file, and for one that lies elsewhere."""
    return path.parent.parent if path.parent.name == "checkpoints" and is_of_winnow(path) else None


def verify(path: Path) -> None:
    """Raise CheckpointError if a file is not, byte for byte, a checkpoint as winnow wrote it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = size - COMMENT_LENGTH
        file.seek(max(0, start))
        comment = file.read()
        if not comment.startswith(MARK):
            raise CheckpointError(
                f"{path} is damaged, cut short, or was not written by winnow: its checksum is missing"
            )
        if comment[len(MARK) :] != _digest(file, start - 2):
            raise CheckpointError(f"{path} is damaged: its checksum does not match its {size} bytes")


def has_whole_checkpoint(run: Path) -> bool:
    """Return whether the folder of a run holds a checkpoint to resume from; a damaged one is none."""
    for path in (run / "checkpoints").glob("*.pth"):
        try:
            verify(path)
        except (CheckpointError, OSError):
            continue
        return True
    return False


def _digest(file: BinaryIO, end: int) -> bytes:
    file.seek(0)
    sha = hashlib.sha256()
    left = end
    while left > 0:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            break
        sha.update(chunk)
        left -= len(chunk)
    return sha.hexdigest().encode()
