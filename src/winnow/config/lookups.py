"""Which values of a composed config the environment gave, by ``oc.env``: they are recorded as ``***``, however they look."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from winnow.config.flat import flat
from winnow.masking import MASK, VARIABLE, masked_tracking, masked_tree

_FAILED = object()


def looked_up(cfg: DictConfig, node: str = "tracking") -> dict[str, Any]:
    """Return the values below ``node`` of a composed config that ``oc.env`` had a part in, by their key below it. A value that
    can't be found is left out."""
    keys = list(_keys(cfg, node))
    with_environment = {key: _value(cfg, f"{node}.{key}") for key in keys}
    with _hidden_environment():
        without = {key: _value(cfg, f"{node}.{key}") for key in keys}
    found = {key: value for key, value in with_environment.items() if value is not _FAILED}
    return {key: value for key, value in found.items() if without[key] is _FAILED or without[key] != value}


def is_looked_up(cfg: DictConfig, key: str) -> bool:
    """Tell whether ``oc.env`` had a part in the value of the dotted ``key``."""
    found = _value(cfg, key)
    with _hidden_environment():
        return found is not _FAILED and found != _value(cfg, key)


def without_absent(cfg: DictConfig, node: str = "tracking") -> DictConfig:
    """Return ``cfg`` with ``***`` in the place of each value below ``node`` that the environment lacks: a run that is resumed
    trains on without it."""
    absent = [key for key in _keys(cfg, node) if _value(cfg, f"{node}.{key}") is _FAILED]
    if not absent:
        return cfg
    copy = cfg.copy()
    with open_dict(copy):
        for key in absent:
            OmegaConf.update(copy, f"{node}.{key}", MASK)
    return copy


def recorded_config(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain config as it is written down: every secret masked, and those of the values ``given`` by the environment
    (key below ``tracking`` → value) that it follows as ``***``."""
    masked = {key: masked_tree(value) for key, value in config.items() if key != "tracking"}
    tracking = masked_tracking(config["tracking"])
    followed = flat(config["tracking"])
    for key, value in given.items():
        if key in followed and followed[key] == value:
            *nodes, last = key.split(".")
            node = tracking
            for name in nodes:
                node = node[name]
            node[last] = MASK
    return {key: tracking if key == "tracking" else masked[key] for key in config}


def _keys(cfg: DictConfig, node: str) -> Iterator[str]:
    if OmegaConf.is_dict(cfg.get(node)):
        yield from flat(OmegaConf.to_container(cfg[node], resolve=False))  # type: ignore[arg-type]


def _value(cfg: DictConfig, key: str) -> Any:
    try:
        value = OmegaConf.select(cfg, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        return _FAILED


@contextlib.contextmanager
def _hidden_environment() -> Iterator[None]:
    """Let ``oc.env`` give ``***`` inside, but for what winnow itself moved into the environment, which shows by its address."""

    def env(key: str, default: Any = None) -> str | None:
        del default
        return os.environ.get(key) if key.startswith(VARIABLE) else MASK

    OmegaConf.register_resolver("oc.env", env, replace=True, annotation_validation="off")
    try:
        yield
    finally:
        OmegaConf.register_resolver("oc.env", oc.env, replace=True, annotation_validation="off")
