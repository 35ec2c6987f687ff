"""What Hydra composes, as plain values, and the command line's words that it composes from. Imports nothing heavy: sweeps begin
with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from winnow.errors import ConfigError, WinnowError

Config = dict[str, Any]


def plain_config(cfg: DictConfig, may_lack: bool = False) -> Config:
    """The composed config as plain values, interpolations resolved; ConfigError for a value that is still ``???``, unless it
    ``may_lack`` some, as that of a command which resumes a run."""
    try:
        return cast(Config, OmegaConf.to_container(cfg, resolve=True, throw_on_missing=not may_lack))
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or str(error)
        raise ConfigError(f"{key} has no value yet; give it on the command line: {key}=…") from None
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from error


def without(overrides: Sequence[str], *keys: str) -> list[str]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [
        text
        for text, override in zip(overrides, parsed, strict=True)
        if override.package is not None or override.key_or_group not in keys
    ]


def with_stage(overrides: Sequence[str], name: str) -> list[str]:
    """The command line with ``stage=name`` in the place of its own choice of a stage."""
    return [*without(overrides, "stage"), f"stage={name}"]


@contextlib.contextmanager
def said_of(name: str) -> Iterator[None]:
    """Errors inside begin with the stage they are about."""
    try:
        yield
    except WinnowError as error:
        error.args = (f"stage={name}: {error}",)
        raise
