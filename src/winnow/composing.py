"""The config of a command line, and what the same one composes with another stage: in train.py's own job, and outside of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from hydra import compose, initialize_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from winnow.composed import plain_config, said_of, with_stage
from winnow.composition import register_resolvers
from winnow.errors import ConfigError
from winnow.run_config import choice_text
from winnow.stages import Composed, Stage


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
            config = loader.load_sweep_config(hydra, with_stage(overrides, name))
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


def group_choices(config: DictConfig) -> dict[str, str]:
    """Config group → choice that a config with its ``hydra`` node was composed of; several files of one group, as
    ``+experiment=[a,b]``, which Hydra does not list, as ``[a,b]``."""
    found = {str(group): str(choice) for group, choice in config.hydra.runtime.choices.items()}
    choices = {group: choice for group, choice in found.items() if not group.startswith("hydra/")}
    for override in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)):
        group, value = override.key_or_group, override.value()
        if isinstance(value, list) and "." not in group and group not in config:
            choices[group] = choice_text(value)
    return choices
