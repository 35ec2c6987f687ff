"""The checkpoints of a run folder by the moments that they were taken at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.seal import OWN_NAME
from winnow.engine.restorable import require_content
from winnow.errors import CheckpointError, ConfigError


@dataclass(frozen=True, order=True)
class Moment:
    """Where a run stood: finished epochs, samples taken from the epoch in progress, optimizer updates."""

    epoch: int
    sample: int
    step: int

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> Moment:
        return cls(checkpoint["epoch"], checkpoint["progress"]["sample"], checkpoint["step"])

    def __str__(self) -> str:
        within = f", sample {self.sample} of the next" if self.sample else ""
        return f"epoch {self.epoch}{within}, step {self.step}"


@dataclass(frozen=True)
class Saved:
    """A moment and the files that were saved at it; ``content`` is that of the first. Names of one file (hard links) are one."""

    moment: Moment
    content: dict[str, Any] = field(repr=False)
    paths: tuple[Path, ...]

    @property
    def path(self) -> Path:
        return self.paths[0]


def saved_moments(folder: Path) -> tuple[list[Saved], list[str]]:
    """Return what the run of ``folder`` saved, the oldest first, and a line for each of its checkpoints that can't be read.
    Raises ConfigError for a folder that holds no run of its own."""
    checkpoints = folder / "checkpoints"
    names = sorted(path for path in checkpoints.glob("*.pth") if OWN_NAME.fullmatch(path.name))
    if not names:
        inside = sorted(str(path.parent.parent) for path in folder.glob("*/checkpoints/last.pth"))
        more = f"; it holds several runs, name one: {', '.join(inside[:5])}" if inside else ""
        raise ConfigError(f"{folder} is no run folder: it has no checkpoints/last.pth{more}")
    files = {path.stat().st_ino: path for path in names}
    found: dict[Moment, Saved] = {}
    damaged: list[str] = []
    for path in files.values():
        try:
            content = read_checkpoint(path)
            require_content(content, path)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        moment = Moment.of(content)
        before = found.get(moment)
        found[moment] = Saved(moment, content, (path,)) if before is None else _with(before, path)
    return sorted(found.values(), key=lambda saved: saved.moment), damaged


def _with(saved: Saved, path: Path) -> Saved:
    return Saved(saved.moment, saved.content, (*saved.paths, path))
