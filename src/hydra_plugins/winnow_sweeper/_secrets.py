"""A sweep's secrets on their way to its jobs: they go by the environment, which jobs inherit. Command lines, a cluster's pickles
and what is recorded hold a reference in their place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from winnow.config.flat import flat
from winnow.config.lookups import is_looked_up
from winnow.config.plain import command_overrides
from winnow.config.values import override_text, parse_override, plain
from winnow.errors import ConfigError
from winnow.masking import MASK, VARIABLE, by_environment, has_secret, is_masked, is_reference, masked

STORAGE = "hydra.sweeper.storage"


def hide_secrets(config: DictConfig, arguments: Sequence[str]) -> list[str]:
    """Move the secrets of a sweep's ``config`` and of its command line's ``arguments`` into this process's environment; return
    the arguments with references to them. Jobs are composed of the same references, and write no files of Hydra's own. Raises
    ConfigError for a secret that is searched."""
    hydra = config.hydra
    with read_write(hydra), open_dict(hydra):
        for kind in ("task", "hydra"):
            hydra.overrides[kind] = [by_reference(text) for text in command_overrides(hydra.overrides[kind])]
        storage = OmegaConf.to_container(hydra.sweeper, resolve=False)["storage"]  # type: ignore[call-overload, index]
        if isinstance(storage, str) and "${" not in storage and has_secret(storage):
            hydra.sweeper.storage = by_environment(storage)
            hydra.overrides.hydra = [
                text
                for text in command_overrides(hydra.overrides.hydra)
                if text.partition("=")[0].lstrip("+") != STORAGE
            ]
            hydra.overrides.hydra.append(f"{STORAGE}={by_environment(storage)}")
        hydra.overrides.hydra.append("hydra.output_subdir=null")
        hydra.output_subdir = None
    with read_write(config), open_dict(config):
        for node, key, value in _open_secrets(config):
            node[key] = by_environment(value)
    HydraConfig.instance().set_config(config)  # a copy of the same, which goes to jobs as well
    return [by_reference(text) for text in arguments]


def references_in(config: DictConfig) -> list[str]:
    """Return the overrides that put the references of a sweep's ``config`` into a job's, whose config files hold the secrets
    themselves: a cluster's launcher writes down what its jobs were composed of."""
    own = OmegaConf.to_container(config, resolve=False)
    assert isinstance(own, dict)
    values = flat({str(key): value for key, value in own.items() if key != "hydra"})
    return [f"++{key}={value}" for key, value in values.items() if isinstance(value, str) and is_reference(value)]


def forget_files(loader: Any) -> None:
    """Have Hydra's ``loader`` forget the config files that it has read: it is handed to jobs as it is."""
    cache = getattr(getattr(loader, "_active_repository", None), "cache", None)
    if isinstance(cache, dict):
        cache.clear()


def by_reference(override: str) -> str:
    """Return an override of the command line with its value, where that holds a secret, in the environment. Raises ConfigError
    where it is searched: what a study holds is recorded."""
    if "${" in override or ("://" not in override and not has_secret(override)):
        return override
    parsed = parse_override(override)
    if parsed.is_sweep_override():
        if has_secret(override):
            raise ConfigError(f"{masked(override)}: a secret can't be searched, a study records what it tries")
        return override
    value = None if parsed.is_delete() else plain(parsed.value())
    if not has_secret(override) and _hidden(value, is_tried=True) == value:
        return override
    hidden: Any = _hidden(value)
    text = hidden if isinstance(hidden, str) else override_text(hidden)
    return f"{parsed.get_key_element()}={text}"


def storage_reference(config: DictConfig, storage: str) -> str:
    """Return the address of a study as its jobs get it."""
    return by_environment(storage) if has_secret(storage) or is_looked_up(config, STORAGE) else storage


def shown_storage(config: DictConfig, storage: str | None) -> str | None:
    """Return the address of a study as it is recorded."""
    if storage is None:
        return None
    return MASK if is_looked_up(config, STORAGE) else masked(storage)


def environment_of_jobs() -> dict[str, str]:
    """Return what jobs must find in their environment, for those that don't inherit this process's."""
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLE)}


def require_secrets(base: Mapping[str, Any]) -> None:
    """Raise ConfigError where a sweep is told an address of ``tracking`` as it is recorded, without its secret."""
    node = base.get("tracking")
    for key, value in flat(node).items() if isinstance(node, Mapping) else ():
        if is_masked(value):
            raise ConfigError(f"tracking.{key}={value} stands without its secret, as it is recorded; give it whole")


def _hidden(value: Any, is_tried: bool = False) -> Any:
    """Return a value with its secrets in the environment; one that ``is_tried`` is only masked."""
    if isinstance(value, dict):
        return {key: _hidden(item, is_tried) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item, is_tried) for item in value]
    if not isinstance(value, str) or not has_secret(value):
        return value
    return masked(value) if is_tried else by_environment(value)


def _open_secrets(config: DictConfig) -> Iterator[tuple[Any, Any, str]]:
    """Yield (node, key, text) of each text of a config file that holds a secret in the open. Sweeper and launcher are left out:
    Hydra composes them anew for each job and wants them the same."""
    nodes: list[Any] = [config]
    while nodes:
        node = nodes.pop()
        keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
        for key in keys if not node._is_none() and not node._is_missing() and not node._is_interpolation() else ():
            item = node._get_node(key)
            if isinstance(item, DictConfig | ListConfig):
                if item is not config.hydra._get_node("sweeper") and item is not config.hydra._get_node("launcher"):
                    nodes.append(item)
            elif isinstance(text := item._value(), str) and "${" not in text and has_secret(text):
                yield node, key, text
