"""The config of a command line as train.py would compose it, outside of train.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from winnow.composed import Config, plain_config
from winnow.composition import register_resolvers
from winnow.errors import ConfigError


@dataclass(frozen=True)
class Composed:
    """``config`` without Hydra's own node, whose values may be ``???``; ``run_folder`` as hydra.run.dir names it, not made;
    ``choices`` of each group."""

    config: Config
    run_folder: Path
    choices: dict[str, str]
    overrides: list[str]


def find_config_folder(folder: Path) -> Path:
    """``folder``, made absolute; ConfigError where it is not a project's conf/."""
    found = folder.resolve()
    if not (found / "config.yaml").is_file():
        raise ConfigError(
            f"{found}/config.yaml does not exist; run this in the folder that holds train.py and conf/, or say where conf/ is"
        )
    return found


def compose_command_line(folder: Path, overrides: Sequence[str]) -> Composed:
    """What ``python train.py OVERRIDES`` composes from ``folder``, its conf/. ConfigError with Hydra's own words for what can't
    be composed."""
    register_resolvers()
    try:
        with initialize_config_dir(str(find_config_folder(folder))):
            config = compose("config", list(overrides), return_hydra_config=True)
        hydra = config.hydra
        run_folder = Path(str(hydra.run.dir))
        choices = {
            group: str(choice) for group, choice in hydra.runtime.choices.items() if not group.startswith("hydra/")
        }
        own = list(OmegaConf.to_container(hydra.overrides.task))  # type: ignore[arg-type]
        with open_dict(config):
            del config["hydra"]
        plain = plain_config(config, may_lack=True)
    except (HydraException, OmegaConfBaseException) as error:
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        raise ConfigError(f"{error}{cause}") from error
    return Composed(plain, run_folder, choices, [str(text) for text in own])
