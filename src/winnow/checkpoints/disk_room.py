"""Whether the disk holds the checkpoints that a run will keep."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from winnow.checkpoints.folder import CheckpointFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiskRoom:
    """Bytes: of one checkpoint, of all that are on disk at a time, of those that are there already, and of free disk."""

    folder: Path
    checkpoint_bytes: int
    num_files: int
    held_bytes: int
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Return the bytes needed beyond what is there already."""
        return max(0, self.num_files * self.checkpoint_bytes - self.held_bytes)

    @property
    def is_enough(self) -> bool:
        return self.needed_bytes <= self.free_bytes

    def __str__(self) -> str:
        return (
            f"{self.num_files} checkpoints of {in_units(self.checkpoint_bytes)} need {in_units(self.needed_bytes)}, and "
            f"{in_units(self.free_bytes)} are free at {self.folder}"
        )


def disk_room(checkpoint_bytes: int, checkpoints: CheckpointFolder, num_epochs: int) -> DiskRoom:
    """Return the room for a run of ``num_epochs`` in all. Raises OSError if the disk can't be asked."""
    folder = checkpoints.folder.absolute()
    while not folder.exists():
        folder = folder.parent
    # One more for the file that is being written: an old one is removed only after that.
    num_files = checkpoints.most_files(num_epochs) + 1
    return DiskRoom(folder, checkpoint_bytes, num_files, checkpoints.held_bytes(), shutil.disk_usage(folder).free)


def warn_of_little_room(checkpoint_bytes: int, checkpoints: CheckpointFolder, num_epochs: int) -> None:
    """Say it loudly where the disk is too small. A full disk does not end a training, so neither does this."""
    try:
        room = disk_room(checkpoint_bytes, checkpoints, num_epochs)
    except OSError as error:
        logger.warning("how much disk is free at %s is not known: %s", checkpoints.folder, error)
        return
    if not room.is_enough:
        logger.warning("NOT ENOUGH DISK for this run's checkpoints: %s; lower training.keep_last_n, or make room", room)


def in_units(num_bytes: float) -> str:
    """Format bytes for people: ``1234567`` → ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.{0 if unit == 'B' else 1}f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
