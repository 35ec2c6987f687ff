"""What Hydra composes, as plain values, and the command line's words that it composes from. Imports nothing heavy: sweeps begin
with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from winnow.errors import ConfigError
from winnow.reading import naming

Config = dict[str, Any]


def plain_config(cfg: DictConfig, may_lack: bool = False) -> Config:
    """Return the composed config as plain values, interpolations resolved. Raises ConfigError for a value that is still
    ``???``, unless it ``may_lack`` some, as that of a command which resumes a run."""
    try:
        return cast(Config, OmegaConf.to_container(cfg, resolve=True, throw_on_missing=not may_lack))
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or str(error)
        raise ConfigError(f"{key} has no value yet; give it on the command line: {key}=…") from None
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from error


def command_overrides(listed: Sequence[str]) -> list[str]:
    """Return the overrides that Hydra lists of a command line. A value that looks something up in the environment stays as it is
    written: what it came to may be a secret."""
    written = cast(list[str], OmegaConf.to_container(listed, resolve=False))
    return [
        text if "oc.env" in text and "." in text.partition("=")[0] else str(listed[index])
        for index, text in enumerate(written)
    ]


def without(overrides: Sequence[str], *keys: str) -> list[str]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [
        text
        for text, override in zip(overrides, parsed, strict=True)
        if override.package is not None or override.key_or_group not in keys
    ]


def group_choices(config: DictConfig) -> dict[str, str]:
    """Return config group → choice that a config with its ``hydra`` node was composed of; several files of one group, as
    ``+experiment=[a,b]``, which Hydra does not list, as ``[a,b]``."""
    found = {str(group): str(choice) for group, choice in config.hydra.runtime.choices.items()}
    choices = {group: choice for group, choice in found.items() if not group.startswith(("hydra/", "stage/"))}
    for group, choice in found.items():
        if group.startswith("stage/"):  # Hydra 1.4 lists a stage=ink/all that a file chooses as stage/ink=all
            choices["stage"] = f"{group.removeprefix('stage/').partition('@')[0]}/{choice}"
    for override in OverridesParser.create().parse_overrides(command_overrides(config.hydra.overrides.task)):
        group, value = override.key_or_group, override.value()
        if isinstance(value, list) and "." not in group and group not in config:
            choices[group] = choice_text(value)
    return choices


def choice_text(value: Any) -> str:
    """Return a group's choice as it is recorded: ``adamw``, or ``[a,b]`` for several files of one group."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def stage_beside(pipeline: str, name: str) -> str:
    """Return the choice of the group ``stage`` that the file ``stage=pipeline`` means by the stage ``name``: the file of that
    name beside its own; a name with a slash counts from conf/stage on."""
    return name if "/" in name else str(PurePosixPath(pipeline).parent / name)


def with_stage(overrides: Sequence[str], choice: str) -> list[str]:
    """Return the command line with ``stage=choice`` in the place of its own choice of a stage."""
    return [*without(overrides, "stage"), f"stage={choice}"]


@contextlib.contextmanager
def naming_stage(name: str) -> Iterator[None]:
    """Prefix errors raised inside with ``stage=NAME:``."""
    with naming(f"stage={name}"):
        yield
