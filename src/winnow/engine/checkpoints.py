"""The checkpoints folder of a run: which file is written when, which are kept, and which is the newest that can be trusted."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from winnow.engine.checkpoint_file import read_checkpoint, write_checkpoint
from winnow.errors import CheckpointError

logger = logging.getLogger(__name__)

_EPOCH_FILE = re.compile(r"checkpoint_epoch_(\d+)\.pth")


class CheckpointFolder:
    """``last.pth``, ``best.pth`` and the newest ``keep_last_n`` of ``checkpoint_epoch_{N}.pth``."""

    def __init__(self, folder: Path, save_interval: int, keep_last_n: int) -> None:
        self.folder = folder
        self._save_interval = save_interval
        self._keep_last_n = keep_last_n

    @property
    def best(self) -> Path:
        return self.folder / "best.pth"

    @property
    def last(self) -> Path:
        return self.folder / "last.pth"

    def save_last(self, checkpoint: dict[str, Any]) -> None:
        self._write(self.last, checkpoint)

    def save_best(self, checkpoint: dict[str, Any]) -> None:
        self._write(self.best, checkpoint)

    def save_epoch(self, checkpoint: dict[str, Any]) -> None:
        """``checkpoint_epoch_{N}.pth`` where epoch N is due; what exceeds ``keep_last_n`` is deleted afterwards."""
        if checkpoint["epoch"] % self._save_interval or self._keep_last_n == 0:
            return
        self._write(self.folder / f"checkpoint_epoch_{checkpoint['epoch']}.pth", checkpoint)
        for old in self._epoch_files()[self._keep_last_n :]:
            old.unlink(missing_ok=True)

    def is_ours(self, path: Path) -> bool:
        """Whether a file is named as this folder's checkpoints are."""
        return path in (self.best, self.last) or _EPOCH_FILE.fullmatch(path.name) is not None

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The furthest checkpoint that is whole, and its content; each damaged one is named in the log and passed over."""
        for path in [self.last, *self._epoch_files(), self.best]:
            if not path.exists():
                continue
            try:
                return path, read_checkpoint(path)
            except CheckpointError as error:
                logger.error("%s; falling back to an older checkpoint", error)
        return None

    def _epoch_files(self) -> list[Path]:
        """Newest first."""
        numbered = [
            (int(match[1]), path) for path in self.folder.glob("*.pth") if (match := _EPOCH_FILE.fullmatch(path.name))
        ]
        return [path for _, path in sorted(numbered, reverse=True)]

    def _write(self, path: Path, checkpoint: dict[str, Any]) -> None:
        # A full disk must not end a night's training: the file before is intact, and the next save tries again.
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(path, checkpoint)
        except (OSError, RuntimeError) as error:
            logger.error("%s was NOT saved, training goes on and tries again at the next save: %s", path, error)
