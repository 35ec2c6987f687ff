"""Objects from the nodes of a config: what a ``_target_`` may name, and what its arguments may be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from winnow.errors import ConfigError, WinnowError
from winnow.settings import check_arguments


def instantiate(config: Mapping[str, Any], key: str, **injected: Any) -> Any:
    """The object of the node ``key``, with what only code can give. ConfigError for anything the node does wrong."""
    try:
        return hydra.utils.instantiate(config[key], _convert_="all", _execution_whitelist_=trusted(config), **injected)
    except InstantiationException as error:
        if isinstance(error.__cause__, WinnowError):
            raise error.__cause__ from None
        raise ConfigError(f"{key}: {error.__cause__ or error}") from error


def check_node(config: Mapping[str, Any], key: str, injected: Collection[str]) -> None:
    """Refuse what the node's target does not take, before anything slow happens."""
    node = config[key]
    target = target_of(node, key, trusted(config))
    check_arguments(target, {name: value for name, value in node.items() if name != "_target_"}, injected, key)


def target_of(node: Mapping[str, Any], key: str, trusted: Sequence[str]) -> Any:
    """What the node's ``_target_`` names; ConfigError for what is not under the patterns of ``trusted`` or can't be imported."""
    name = node.get("_target_")
    if not isinstance(name, str):
        raise ConfigError(f"{key}._target_ must name the class or function to build, got {name!r}")
    if not name.startswith(tuple(pattern.removesuffix("*") for pattern in trusted)):
        raise ConfigError(
            f"{key}._target_={name!r} is not trusted; add its package to trusted_targets, as [{name.split('.')[0]}]"
        )
    try:
        return hydra.utils.get_object(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}._target_={name!r} can't be imported: {error}") from error


def trusted(config: Mapping[str, Any]) -> list[str]:
    """Patterns of what a ``_target_`` may name."""
    return ["winnow.*", "torch.optim.*", *(f"{name}.*" for name in config["trusted_targets"])]
