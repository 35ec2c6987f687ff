"""Checkpoints to resume: which one ``training.resume`` means, the config of a run that goes on from it, and its restoring."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.folder import CheckpointFolder
from winnow.checkpoints.layouts import ForeignCheckpoint, read_foreign
from winnow.checkpoints.references import moved_sources
from winnow.checkpoints.seal import is_of_winnow, is_sealed
from winnow.config.flat import differences_by_name, flat
from winnow.config.moved import with_moved_choices
from winnow.config.plain import Config, plain_config
from winnow.config.recorded import resumed_config
from winnow.engine.foreign import restore_foreign
from winnow.engine.loop import Fit, restore
from winnow.errors import CheckpointError, ConfigError
from winnow.run_folder import require_unused

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunCheckpoint:
    """A whole checkpoint of winnow's: where it lies, and its content."""

    path: Path
    content: dict[str, Any]

    def resolve(self, composed: Config, overrides: list[str]) -> Config:
        """Return the config that a run follows which goes on from here. Raises ConfigError, and WeightsError where a file with
        frozen weights of the checkpoint is missing or has changed."""
        return self._with_moved_source(resumed_config(self.content, composed, overrides, str(self.path)))

    def choices(self, composed: dict[str, str]) -> dict[str, str]:
        """Return config group → choice as they were when the run began."""
        return with_moved_choices(self.content["metadata"].get("choices", {}), self.content["config"])

    def restore(self, run: Fit) -> None:
        """Put ``run`` where the checkpoint stands. Raises CheckpointError where that is another run's."""
        restore(run, self.content, self.path)

    def _with_moved_source(self, config: Config) -> Config:
        """Return ``config`` with the file of training.frozen_source where the model's node names the one that the frozen
        weights came from, so that the model is built from it too."""
        moved = moved_sources(self.content, self.path, config["training"]["frozen_source"])
        for source, file in moved.items():
            logger.info("%s has moved: its weights are taken from %s (training.frozen_source)", source, file)
        node = config["model"]
        model = {key: moved.get(value, value) if isinstance(value, str) else value for key, value in node.items()}
        return {**config, "model": model}


@dataclass(frozen=True)
class OtherCheckpoint:
    """A whole checkpoint of another program's. Its config is never followed: what it would mean here can't be known."""

    file: ForeignCheckpoint

    @property
    def path(self) -> Path:
        return self.file.path

    def resolve(self, composed: Config, overrides: list[str]) -> Config:
        """Return the command's own config, and log how the file's differs. Raises ConfigError."""
        config = complete(composed)
        log_other_config(self.file, config)
        return config

    def choices(self, composed: dict[str, str]) -> dict[str, str]:
        """Return the command's own choices."""
        return composed

    def restore(self, run: Fit) -> None:
        """Take over what of the file ``run`` can go on with. Raises CheckpointError where it does not fit."""
        restore_foreign(run, self.file)


Found = RunCheckpoint | OtherCheckpoint


def find_checkpoint(resume: str | None, folder: Path) -> Found | None:
    """Return the checkpoint that ``training.resume`` names for the run in ``folder``; None where the run begins. Raises
    CheckpointError, and ConfigError where a run that begins would write over another."""
    foreign = foreign_to_resume(resume)
    found: Found | None = OtherCheckpoint(foreign) if foreign is not None else checkpoint_to_resume(resume, folder)
    if resume is None or foreign is not None:
        require_unused(folder)
    return found


def read_found(path: Path) -> Found:
    """Read a whole checkpoint, of winnow's or another program's, that ``find_checkpoint`` found before. Raises
    CheckpointError."""
    if is_sealed(path):
        return RunCheckpoint(path, read_checkpoint(path))
    return OtherCheckpoint(read_foreign(path, "a checkpoint", CheckpointError))


def complete(composed: Config) -> Config:
    """Return ``composed``. Raises ConfigError where a value of it was never given."""
    return plain_config(OmegaConf.create(composed))


def require_one_start(config: Config) -> None:
    """Raise ConfigError where a command both resumes a run and starts from another's weights. A run that *began* from weights
    may be resumed: its recorded ``init_from`` is history then, as is its stage's; ``auto`` begins a run that is not there
    yet."""
    resume, init_from = config["training"]["resume"], config["training"]["init_from"]
    if resume not in (None, "auto") and init_from not in (None, config["stage"]["init_from"]):
        raise ConfigError(
            f"training.resume={resume!r} and training.init_from={init_from!r} contradict each other: resume goes on with a "
            "run, init_from starts another from its weights; set one to null"
        )


def foreign_to_resume(resume: str | None) -> ForeignCheckpoint | None:
    """Return the whole file that ``training.resume`` names if another program wrote it; None if winnow did, and for null and
    ``auto``. A checkpoint of winnow's that lost its end is winnow's still, where a whole one lies beside it. Raises
    CheckpointError for a file that is no checkpoint."""
    if resume is None or resume == "auto":
        return None
    path = Path(resume)
    if not path.is_file() or is_of_winnow(path):
        return None
    return read_foreign(path, "a checkpoint", CheckpointError)


def log_other_config(file: ForeignCheckpoint, config: Config) -> None:
    """Say how the config that a foreign ``file`` holds differs from the one that is followed: its own is never applied."""
    if not file.config:
        logger.warning("%s holds no config: the command line's is followed", file.path)
        return
    differences, unknown = differences_by_name(flat(file.config), flat(config))
    shown = [f"{key}: {old!r} in the file, {new!r} here" for key, old, new in differences]
    shown += [f"not a key here: {', '.join(sorted(unknown))}"] if unknown else []
    logger.warning(
        "the config of %s is not applied, the command line's is followed; %s%s",
        *(file.path, "they differ:" if shown else "they do not differ"),
        "".join(f"\n  {line}" for line in shown),
    )


def checkpoint_to_resume(resume: str | None, folder: Path) -> RunCheckpoint | None:
    """Return the checkpoint of winnow's that ``training.resume`` names: a file, a run folder (its newest whole one), ``auto``
    (that of ``folder``, or None where the run has not saved yet), or None for null. A damaged file falls back to the newest
    whole one beside it, and the log says so. Raises CheckpointError."""
    if resume is None:
        return None
    path = folder if resume == "auto" else Path(resume)
    if resume == "auto" or path.is_dir():
        newest = CheckpointFolder(path / "checkpoints", save_interval=1, keep_last_n=1).newest()
        if newest is None and resume != "auto":
            raise CheckpointError(f"training.resume={resume!r} is a folder without a checkpoint of a run")
        return RunCheckpoint(*newest) if newest is not None else None
    try:
        return RunCheckpoint(path, read_checkpoint(path))
    except CheckpointError as error:
        beside = CheckpointFolder(path.parent, save_interval=1, keep_last_n=1)
        older = beside.newest() if path.is_file() and beside.is_ours(path) else None
        if older is None:
            raise
        logger.error("%s; going on from %s instead", error, older[0])
        return RunCheckpoint(*older)
