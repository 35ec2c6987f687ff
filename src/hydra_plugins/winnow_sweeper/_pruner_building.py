"""The pruner of a sweep from its config node, checked before anything starts."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner

from hydra_plugins.winnow_sweeper._requirements import require_packages
from winnow.builders import check_arguments
from winnow.config.instantiate import target_of
from winnow.errors import ConfigError

KEY = "hydra.sweeper.pruner"
TRUSTED = ("winnow.sweep.pruners.*", "optuna.pruners.*")
LENGTHS = ("max_epochs", "max_resource")
"""Arguments that mean the epochs of a whole run; where a node leaves one null it is filled in."""


def build_pruner(
    node: Mapping[str, Any] | None, max_epochs: int | None, num_objectives: int = 1, trusted_targets: Sequence[str] = ()
) -> BasePruner:
    """Build the pruner that ``node`` (of ``hydra.sweeper.pruner``; None: no pruning) describes.

    ``max_epochs`` is the epochs of a whole run, None where the config does not say. ``trusted_targets`` are the user's
    packages that a ``_target_`` may name. Raises ConfigError naming the key.
    """
    plain = pruner_node(node, max_epochs)
    require_packages(plain, KEY)
    pruner = NopPruner() if plain is None else _build(plain, KEY, trusted_targets)
    if num_objectives > 1 and not isinstance(pruner, NopPruner):
        raise ConfigError(
            f"{KEY}={type(pruner).__name__} can't judge {num_objectives} objectives: a trial reports one value per epoch only; "
            "choose hydra/sweeper/pruner=none or a single direction"
        )
    return pruner


def pruner_node(node: Mapping[str, Any] | None, max_epochs: int | None) -> dict[str, Any] | None:
    """Return ``node`` as plain values with the run's epochs filled in: what a job needs to build the same pruner."""
    if node is None:
        return None
    if not isinstance(node, Mapping):
        raise ConfigError(f"{KEY}={node!r} must be a node with a _target_; choose one by hydra/sweeper/pruner=NAME")
    plain: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    return _filled(plain, max_epochs, KEY)


def _filled(node: dict[str, Any], max_epochs: int | None, key: str) -> dict[str, Any]:
    filled = dict(node)
    for name, value in node.items():
        if isinstance(value, dict):
            filled[name] = _filled(value, max_epochs, f"{key}.{name}")
        elif name in LENGTHS and value is None:
            if max_epochs is None:
                raise ConfigError(f"{key}.{name} is missing: the config has no training.max_epochs to take it from")
            filled[name] = max_epochs
    return filled


def _build(node: dict[str, Any], key: str, trusted_targets: Sequence[str]) -> BasePruner:
    """Build the pruner of ``node``, those inside of it first, so that each mistake is found under its own key."""
    trusted = [*TRUSTED, *(f"{package}.*" for package in trusted_targets)]
    target = target_of(node, key, trusted)
    inner = {name: _build(value, f"{key}.{name}", trusted_targets) for name, value in node.items() if _is_node(value)}
    arguments = {name: value for name, value in node.items() if name not in ("_target_", *inner)}
    check_arguments(target, arguments, inner.keys(), key)
    plain = {"_target_": node["_target_"], **arguments}
    try:
        if target is HyperbandPruner:
            _check_brackets(arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            injected: dict[str, Any] = dict(inner)
            pruner = hydra.utils.instantiate(plain, _convert_="all", _execution_whitelist_=trusted, **injected)
    except InstantiationException as error:
        raise ConfigError(f"{key}: {error.__cause__ or error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(_located(str(error), arguments, key)) from error
    if not isinstance(pruner, BasePruner):
        raise ConfigError(f"{key}._target_={node['_target_']!r} builds no Optuna pruner, but {type(pruner).__name__}")
    return pruner


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _check_brackets(arguments: Mapping[str, Any]) -> None:
    """Check what Optuna looks at in the first report only, where it would raise in the middle of a trial."""
    bound = inspect.signature(HyperbandPruner).bind(**arguments)
    bound.apply_defaults()
    smallest, largest = bound.arguments["min_resource"], bound.arguments["max_resource"]
    if not isinstance(largest, int):
        raise ValueError(f"max_resource={largest!r} must be a number of epochs: each job would work out its own")
    SuccessiveHalvingPruner(
        smallest, bound.arguments["reduction_factor"], bootstrap_count=bound.arguments["bootstrap_count"]
    )
    if smallest > largest:
        raise ValueError(f"min_resource={smallest!r} must be at most max_resource={largest!r}")


def _located(message: str, arguments: Mapping[str, Any], key: str) -> str:
    """Return the message with the key and value of the argument that it names first, if any."""
    # Optuna writes "warmup steps" for n_warmup_steps.
    words = message.lower().replace("_", " ")
    places = {name: words.find(name.removeprefix("n_").replace("_", " ")) for name in arguments}
    named = sorted((place, -len(name), name) for name, place in places.items() if place >= 0)
    if not named:
        return f"{key}: {message}"
    name = named[0][2]
    if message.startswith(f"{name}="):
        return f"{key}.{message}"
    return f"{key}.{name}={arguments[name]!r}: {message}"
