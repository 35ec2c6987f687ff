"""The config that a run really follows: as composed, or, for a resumed run, as its checkpoint recorded it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.folder import CheckpointFolder
from winnow.checkpoints.layouts import ForeignCheckpoint, read_foreign
from winnow.checkpoints.references import moved_sources
from winnow.checkpoints.seal import is_of_winnow, is_sealed
from winnow.config.flat import differences_by_name, flat
from winnow.config.plain import Config, plain_config
from winnow.config.recorded import resumed_config
from winnow.errors import CheckpointError, ConfigError
from winnow.run_folder import require_unused

logger = logging.getLogger(__name__)

Found = tuple[Path, dict[str, Any]] | ForeignCheckpoint
"""A checkpoint to resume: where it lies and its content, or what another program's file holds."""


def config_of_run(composed: Config, folder: Path, overrides: list[str]) -> tuple[Config, Found | None]:
    """What a run in ``folder`` is to follow, and the checkpoint that it goes on from; ``composed`` by these command-line
    overrides may lack values. Raises ConfigError, CheckpointError."""
    require_one_start(composed)
    resume = composed["training"]["resume"]
    foreign = foreign_to_resume(resume)
    saved = checkpoint_to_resume(resume, folder) if foreign is None else None
    if saved is not None:
        return with_moved_source(resumed_config(saved[1], composed, overrides), saved), saved
    config = plain_config(OmegaConf.create(composed))
    if resume is None or foreign is not None:
        require_unused(folder)
    if foreign is not None:
        log_other_config(foreign, config)
    return config, foreign


def with_moved_source(config: Config, saved: tuple[Path, dict[str, Any]]) -> Config:
    """Return ``config`` with the file that training.frozen_source gives where the model's node names the one that the frozen
    weights of ``saved`` came from, so that the model is built from it too. Raises WeightsError, before anything is built, where
    that file is missing or has changed."""
    moved = moved_sources(saved[1], saved[0], config["training"]["frozen_source"])
    for source, file in moved.items():
        logger.info("%s has moved: its weights are taken from %s (training.frozen_source)", source, file)
    model = {
        key: moved.get(value, value) if isinstance(value, str) else value for key, value in config["model"].items()
    }
    return {**config, "model": model}


def require_one_start(config: Config) -> None:
    """ConfigError where a command both resumes a run and starts from another's weights. A run that *began* from weights may
    be resumed: its recorded ``init_from`` is history then, as is its stage's; ``auto`` begins a run that is not there yet."""
    resume, init_from = config["training"]["resume"], config["training"]["init_from"]
    if resume not in (None, "auto") and init_from not in (None, config["stage"]["init_from"]):
        raise ConfigError(
            f"training.resume={resume!r} and training.init_from={init_from!r} contradict each other: resume goes on with a "
            "run, init_from starts another from its weights; set one to null"
        )


def foreign_to_resume(resume: str | None) -> ForeignCheckpoint | None:
    """The whole file that ``training.resume`` names where another program wrote it; None where winnow did, or for null and
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


def read_found(path: Path) -> Found:
    """A whole checkpoint, of winnow's or another program's, as rank 0 found it."""
    return (path, read_checkpoint(path)) if is_sealed(path) else read_foreign(path, "a checkpoint", CheckpointError)


def path_of(found: Found) -> Path:
    return found[0] if isinstance(found, tuple) else found.path


def checkpoint_to_resume(resume: str | None, folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that ``training.resume`` names: a file, a run folder (its newest whole one), ``auto`` (that of ``folder``,
    or None where the run has not saved yet), or None for null. A damaged file falls back to the newest whole one beside it,
    and says so."""
    if resume is None:
        return None
    path = folder if resume == "auto" else Path(resume)
    if resume == "auto" or path.is_dir():
        newest = CheckpointFolder(path / "checkpoints", save_interval=1, keep_last_n=1).newest()
        if newest is None and resume != "auto":
            raise CheckpointError(f"training.resume={resume!r} is a folder without a checkpoint of a run")
        return newest
    try:
        return path, read_checkpoint(path)
    except CheckpointError as error:
        beside = CheckpointFolder(path.parent, save_interval=1, keep_last_n=1)
        older = beside.newest() if path.is_file() and beside.is_ours(path) else None
        if older is None:
            raise
        logger.error("%s; going on from %s instead", error, older[0])
        return older


def in_halves(config: Config) -> Config | None:
    """``config`` with half the batch and twice the accumulation, which is the same step; None where that is not wanted or not
    possible."""
    training = config["training"]
    if not training["oom_retry"] or training["batch_size"] % 2:
        return None
    halved = {"batch_size": training["batch_size"] // 2, "accumulate": 2 * training["accumulate"]}
    return {**config, "training": {**training, **halved}}
