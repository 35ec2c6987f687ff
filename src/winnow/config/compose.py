"""The config of a command line, and what the same one composes with another stage: in train.py's own job, and outside of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hydra import compose, initialize_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from winnow.config.plain import Config, group_choices, plain_config, said_of, stage_beside, with_stage
from winnow.config.resolvers import register_resolvers
from winnow.config.schema import RunSettings
from winnow.errors import ConfigError
from winnow.settings import build_settings


@dataclass(frozen=True)
class Stage:
    """One run of a pipeline: its resolved config, and config group → choice."""

    name: str
    config: Config
    choices: dict[str, str]

    def settings(self) -> RunSettings:
        return build_settings(RunSettings, self.config, "")


@dataclass(frozen=True)
class Composed:
    """What a command line comes to: its ``config`` without Hydra's own node, whose values may be ``???``; ``run_folder`` as
    hydra.run.dir names it, made or not; ``choices`` of each group; its ``overrides`` but those of Hydra itself."""

    config: Config
    run_folder: Path
    choices: dict[str, str]
    overrides: list[str]


def composed_job(cfg: DictConfig) -> tuple[Composed, Callable[[str], Stage]]:
    """The job that runs, whose config is ``cfg``; and what it composes with the stage named. Raises ConfigError, also the
    second one does."""
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    hydra = HydraConfig.instance().cfg
    assert isinstance(hydra, DictConfig)

    def with_another(name: str) -> Stage:
        loader = GlobalHydra.instance().config_loader()
        try:
            choice = stage_beside(group_choices(hydra)["stage"], name)
            config = loader.load_sweep_config(hydra, with_stage(overrides, choice))
        except HydraException as error:
            raise ConfigError(f"stage={name} can't be composed: {error}") from error
        choices = group_choices(config)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.copy_cache(from_config=cfg, to_config=config)  # the times that it resolved stay
        with said_of(name):
            return Stage(PurePosixPath(name).name, plain_config(config, may_lack=True), choices)

    folder = Path(job.runtime.output_dir)
    return Composed(plain_config(cfg, may_lack=True), folder, group_choices(hydra), overrides), with_another


def compose_command_line(folder: Path, overrides: Sequence[str], added: Path | None = None) -> Composed:
    """What ``python train.py --config-dir ADDED OVERRIDES`` composes from ``folder``, its conf/. ConfigError with Hydra's own
    words for what can't be composed."""
    register_resolvers()
    sources = [find_config_folder(folder)]
    if added is not None:
        if not added.is_dir():
            raise ConfigError(f"--config-dir {added}: there is no such folder")
        sources.append(added.resolve())
    try:
        with initialize_config_search_path([f"file://{source}" for source in sources]):
            config = compose("config", list(overrides), return_hydra_config=True)
        run_folder, choices = Path(str(config.hydra.run.dir)), group_choices(config)
        own = list(OmegaConf.to_container(config.hydra.overrides.task))  # type: ignore[arg-type]
        with open_dict(config):
            del config["hydra"]
        plain = plain_config(config, may_lack=True)
    except (HydraException, OmegaConfBaseException) as error:
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        raise ConfigError(f"{error}{cause}") from error
    return Composed(plain, run_folder, choices, [str(text) for text in own])


def find_config_folder(folder: Path) -> Path:
    """``folder``, made absolute; ConfigError where it is not a project's conf/."""
    found = folder.resolve()
    if not (found / "config.yaml").is_file():
        raise ConfigError(
            f"{found}/config.yaml does not exist; run this in the folder that holds train.py and conf/, or say where conf/ is"
        )
    return found
