"""How a checkpoint of winnow's is told from any other file: the mark at its end. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

# torch.save ends its zip with an empty comment; the checksum becomes that comment, so the file stays an ordinary .pth.
MARK = b"winnow sha256 "
COMMENT_LENGTH = len(MARK) + hashlib.sha256().digest_size * 2

OWN_NAME = re.compile(r"(last|best|checkpoint_epoch_\d+)\.pth")
"""What a run calls its checkpoints."""


def is_sealed(path: Path) -> bool:
    """Whether a file ends as winnow's checkpoints do, whole or not."""
    if not path.is_file() or path.stat().st_size < COMMENT_LENGTH:
        return False
    with path.open("rb") as file:
        file.seek(-COMMENT_LENGTH, os.SEEK_END)
        return file.read(len(MARK)) == MARK


def is_of_winnow(path: Path) -> bool:
    """Whether a file is a checkpoint of winnow's. One that lost its end is, where a whole one lies beside it: no other program's
    ``last.pth`` lies in such a folder."""
    if is_sealed(path):
        return True
    is_named_so = path.is_file() and OWN_NAME.fullmatch(path.name) is not None
    return is_named_so and any(map(is_sealed, path.parent.glob("*.pth")))


def run_folder_of(path: Path) -> Path | None:
    """The run folder that a checkpoint of winnow's lies in; None for any other file, and for one that lies elsewhere."""
    return path.parent.parent if path.parent.name == "checkpoints" and is_of_winnow(path) else None
