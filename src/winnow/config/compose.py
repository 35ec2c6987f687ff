"""What a command line composes to, with its own stage and with another: in train.py's job, and for commands beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from winnow.config.lookups import looked_up, without_absent
from winnow.config.plain import (
    Config,
    command_overrides,
    group_choices,
    naming_stage,
    plain_config,
    stage_beside,
    with_stage,
)
from winnow.config.project import search_path
from winnow.config.quoting import quoting_advice, with_home
from winnow.config.resolvers import register_resolvers
from winnow.errors import ConfigError
from winnow.reading import reason

COMPOSING = (HydraException, OSError, OmegaConfBaseException, RecursionError, TypeError, ValueError)
"""What Hydra raises on words that it can't compose: its parser on ``[[[…``, the file system on a choice of 5,000 letters."""


@dataclass(frozen=True)
class Command:
    """A command line, composed: ``config`` without Hydra's own node, whose values may be ``???``; ``run_folder`` as
    hydra.run.dir names it, made or not; the ``choices`` of each group; the ``overrides`` but those of Hydra itself;
    ``looked_up`` what the environment gave of ``tracking``, by key below it.

    ``compose_stage(NAME)`` composes the same command line with the stage NAME of its pipeline. Raises ConfigError.
    """

    config: Config
    run_folder: Path
    choices: dict[str, str]
    overrides: list[str]
    compose_stage: Callable[[str], Command]
    looked_up: dict[str, Any] = field(default_factory=dict, repr=False)


def job_command(cfg: DictConfig) -> Command:
    """Return the command of the running job, whose config is ``cfg``. Raises ConfigError."""
    job = HydraConfig.get()
    folder, overrides = Path(job.runtime.output_dir), command_overrides(job.overrides.task)
    hydra = HydraConfig.instance().cfg
    assert isinstance(hydra, DictConfig)
    choices = group_choices(hydra)

    def compose_stage(name: str) -> Command:
        loader = GlobalHydra.instance().config_loader()
        try:
            config = loader.load_sweep_config(hydra, with_stage(overrides, stage_beside(choices["stage"], name)))
        except COMPOSING as error:
            raise ConfigError(f"stage={name} can't be composed: {error}") from error
        own_choices = group_choices(config)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.copy_cache(from_config=cfg, to_config=config)  # the times that it resolved stay
        with naming_stage(name):
            return Command(_plain(config), folder, own_choices, overrides, compose_stage, looked_up(config))

    return Command(_plain(cfg), folder, choices, overrides, compose_stage, looked_up(cfg))


def compose_command_line(folder: Path | None, overrides: Sequence[str], added: Path | None = None) -> Command:
    """Compose what ``winnow train --config-dir ADDED OVERRIDES`` does from ``folder``, a project's conf/; None: that of the
    working folder, or what winnow brings along. Raises ConfigError with Hydra's own words for what can't be composed."""
    register_resolvers()
    overrides = with_home(overrides)
    sources = search_path(folder, added)
    try:
        with initialize_config_search_path(sources):
            config = compose("config", list(overrides), return_hydra_config=True)
        run_folder, choices = Path(str(config.hydra.run.dir)), group_choices(config)
        own = command_overrides(config.hydra.overrides.task)
        with open_dict(config):
            del config["hydra"]
        plain, given = _plain(config), looked_up(config)
    except COMPOSING as error:
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        words = reason(error) if isinstance(error, RecursionError) else f"{error}{cause}{quoting_advice(overrides)}"
        raise ConfigError(words) from error

    def compose_stage(name: str) -> Command:
        other = compose_command_line(folder, with_stage(overrides, stage_beside(choices["stage"], name)), added)
        return replace(other, run_folder=run_folder)

    return Command(plain, run_folder, choices, own, compose_stage, given)


def _plain(cfg: DictConfig) -> Config:
    """Return the composed config as plain values; of a command that resumes, ``tracking`` may name what the environment lacks."""
    is_resumed = OmegaConf.select(cfg, "training.resume") is not None
    return plain_config(without_absent(cfg) if is_resumed else cfg, may_lack=True)
