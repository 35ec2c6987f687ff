"""The checkpoints folder of a run: which file is written when, which are kept, and which is the newest that can be trusted."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from winnow.checkpoints.file import read_checkpoint, remove_leftovers
from winnow.checkpoints.writer import CheckpointWriter, Recorded
from winnow.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

_EPOCH_FILE = re.compile(r"checkpoint_epoch_(\d+)\.pth")


def checkpoint_in(folder: Path, which: str = "best") -> Path:
    """Return best.pth or last.pth of a run folder, the other where ``which`` is not there. Raises ConfigError for a folder that
    holds no run, or several."""
    order = [which, "last" if which == "best" else "best"]
    found = next((path for name in order if (path := folder / "checkpoints" / f"{name}.pth").exists()), None)
    if found is not None:
        return found
    inside = sorted(str(path.parent.parent) for path in folder.glob("*/checkpoints/last.pth"))
    if inside:
        shown = ", ".join(inside[:5]) + (" …" if len(inside) > 5 else "")
        raise ConfigError(f"{folder} holds several runs, name one of them: {shown}")
    raise ConfigError(f"{folder} is no run folder: it has no checkpoints/best.pth and no checkpoints/last.pth")


class CheckpointFolder:
    """``last.pth``, ``best.pth`` and the newest ``keep_last_n`` of ``checkpoint_epoch_{N}.pth``.

    A context: entering removes what a killed writer left, leaving waits until all that was saved is on disk. Whoever enters it
    is the only one who writes into the folder.
    """

    def __init__(self, folder: Path, save_interval: int, keep_last_n: int) -> None:
        self.folder = folder
        self._save_interval = save_interval
        self._keep_last_n = keep_last_n
        self._writer = CheckpointWriter(must_have=self.best, after=self._prune)
        self.has_room = False

    def __enter__(self) -> Self:
        try:
            remove_leftovers(self.folder)
        except OSError as error:
            logger.error("what a killed writer left in %s can't be removed: %s", self.folder, error)
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()
        self.has_room = False

    @property
    def best(self) -> Path:
        return self.folder / "best.pth"

    @property
    def last(self) -> Path:
        return self.folder / "last.pth"

    def save_last(self, checkpoint: dict[str, Any], recorded: Recorded) -> None:
        """Take a copy and return; the file is written in the background, after the one before and after ``recorded``."""
        self._writer.save(checkpoint, [self.last], recorded)

    def save_epoch(self, checkpoint: dict[str, Any], is_best: bool, recorded: Recorded) -> None:
        """Save as ``save_last`` does, the same file also as ``best.pth`` and as ``checkpoint_epoch_{N}.pth`` where they
        are due.

        ``last.pth`` comes last: were a run killed in between and resumed from it, it would never make up for the
        others.
        """
        is_due = checkpoint["epoch"] % self._save_interval == 0 and self._keep_last_n > 0
        numbered = self.folder / f"checkpoint_epoch_{checkpoint['epoch']}.pth"
        self._writer.save(checkpoint, [*([self.best] * is_best), *([numbered] * is_due), self.last], recorded)

    def make_room(self, checkpoint: dict[str, Any], still: Iterable[Tensor] = ()) -> None:
        """Prepare in the background for saves of about this size, which costs the first one its extra time; those of its
        tensors that hold ``still`` are copied once for all saves."""
        self._writer.hold_still(still)
        self._writer.make_room(checkpoint)

    def wait(self) -> None:
        """Wait until what was saved is on disk, or the log says why not."""
        self._writer.wait()

    def is_ours(self, path: Path) -> bool:
        """Return whether a file is named as this folder's checkpoints are."""
        return path in (self.best, self.last) or _EPOCH_FILE.fullmatch(path.name) is not None

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the furthest checkpoint that is whole, and its content; each damaged one is named in the log and
        passed over.
        """
        for path in [self.last, *self._epoch_files(), self.best]:
            if not path.exists():
                continue
            try:
                return path, read_checkpoint(path)
            except CheckpointError as error:
                logger.error("%s; falling back to an older checkpoint", error)
        return None

    def most_files(self, num_epochs: int) -> int:
        """Return how many different files a run of ``num_epochs`` leaves at most; ``last`` and ``best`` may be names of
        one of them.
        """
        return min(2 + min(self._keep_last_n, num_epochs // self._save_interval), num_epochs)

    def held_bytes(self) -> int:
        """Return what this folder's checkpoints take on disk now, several names of one file counted once."""
        found = [path.stat() for path in self.folder.glob("*.pth") if self.is_ours(path)]
        return sum({stat.st_ino: stat.st_size for stat in found}.values())

    def _epoch_files(self) -> list[Path]:
        """Return the files of epochs, newest first."""
        numbered = [
            (int(match[1]), path) for path in self.folder.glob("*.pth") if (match := _EPOCH_FILE.fullmatch(path.name))
        ]
        return [path for _, path in sorted(numbered, reverse=True)]

    def _prune(self) -> None:
        if self._keep_last_n == 0:  # no numbered file is written; those of an earlier part of the run stay
            return
        for old in self._epoch_files()[self._keep_last_n :]:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                logger.error("%s, which is no longer needed, can't be deleted: %s", old, error)
