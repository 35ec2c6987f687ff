"""Objects from the nodes of a config: what a ``_target_`` may name, and what its arguments may be."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from winnow import protocols
from winnow.builders import check_arguments, mark_of, require_parameters, require_promised, require_protocol
from winnow.config.moved import moved_target
from winnow.errors import ConfigError, DataError, WinnowError

OWN = (
    "winnow.families.*", "winnow.tracking.mlflow_tracker.MlflowTracker",
    "winnow.tracking.null_tracker.NullTracker", "torch.optim.*",
)  # fmt: skip
"""Where everything lies that a config may build without being told to trust more."""

_PROTOCOLS: dict[str, type] = {
    "data": protocols.Data, "model": protocols.Task, "evaluation": protocols.Evaluation, "tracking": protocols.Tracker,
}  # fmt: skip
"""Config node → what its target must return."""


def instantiate(config: Mapping[str, Any], key: str, **injected: Any) -> Any:
    """Return the object of the node ``key``, built with what only code can give. Raises ConfigError for anything that the node
    or its target does wrong, DataError where a data set's place can't be used."""
    require_builders(config[key], key, trusted(config))
    target, protocol = target_of(config[key], key, trusted(config)), _PROTOCOLS.get(key)
    if protocol is not None:
        require_parameters(target, injected, key)
    try:
        built = hydra.utils.instantiate(config[key], _convert_="all", _execution_whitelist_=trusted(config), **injected)
    except InstantiationException as error:
        if isinstance(error.__cause__, WinnowError):
            raise error.__cause__ from None
        raise ConfigError(f"{key}: {error.__cause__ or error}") from error
    except OSError as error:  # a place that can't be written to, or is full
        raise (DataError if key == "data" else ConfigError)(f"{key}: {error}") from error
    if protocol is not None:
        require_protocol(built, protocol, key, target)
    return built


def check_node(config: Mapping[str, Any], key: str, injected: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise ConfigError for what the node's target does not take, and for one that says itself that it gives something else
    than is needed, before anything slow happens. ``injected`` are the parameters that code gives, ``optional`` those that it
    gives where they are needed."""
    node = config[key]
    target = target_of(node, key, trusted(config))
    if key in _PROTOCOLS:
        require_promised(target, _PROTOCOLS[key], key)
    check_arguments(
        target, {name: value for name, value in node.items() if name != "_target_"}, injected, key, optional
    )


def target_of(node: Mapping[str, Any], key: str, trusted: Sequence[str]) -> Any:
    """Return what the node's ``_target_`` names. Raises ConfigError if it is not under the patterns of ``trusted`` or
    can't be imported.
    """
    name = node.get("_target_")
    if not isinstance(name, str):
        raise ConfigError(f"{key}._target_ must name the class or function to build, got {name!r}")
    if moved_target(name) != name:
        raise ConfigError(f"{key}._target_={name!r} has moved; name it {moved_target(name)}")
    if not any(_is_under(name, pattern) for pattern in trusted):
        raise ConfigError(
            f"{key}._target_={name!r} is not trusted; add its package to trusted_targets, as [{name.split('.')[0]}]"
        )
    try:
        return hydra.utils.get_object(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}._target_={name!r} can't be imported: {error}") from error


def require_builders(node: Any, key: str, trusted: Sequence[str]) -> None:
    """Raise ConfigError if ``node``, or one inside of it, names what may not be built from a config: of winnow anything
    but builders and trackers, of torch.optim anything but optimizers, unless its package is among those that
    ``trusted`` adds to ``OWN``. A config may come from a file, and what else winnow can do, as start a process, no file
    may ask for.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            target = target_of(node, key, trusted)
            if not _is_builder(target, [pattern for pattern in trusted if pattern not in OWN]):
                raise ConfigError(
                    f"{key}._target_={node['_target_']!r} is nothing that a config may build: it lives in {_home(target)}; "
                    "allowed: winnow's builders and trackers, torch's optimizers, what lives in trusted_targets"
                )
        for name, value in node.items():
            require_builders(value, f"{key}.{name}", trusted)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            require_builders(value, f"{key}[{index}]", trusted)


def _is_builder(target: Any, added: Sequence[str]) -> bool:
    """Judge by where it lives and not by what it was called: every module that imports os makes os.system an attribute
    of its own.
    """
    home, place = _home(target), f"{_home(target)}.{getattr(target, '__qualname__', '')}"
    if any(_is_under(place, pattern) for pattern in added):
        return True
    if home.startswith("winnow."):
        return mark_of(target) is not None
    if home.startswith("torch.optim."):
        return inspect.isclass(target) and any(kind.__qualname__ == "Optimizer" for kind in target.__mro__)
    return False


def _home(target: Any) -> str:
    return str(getattr(target, "__module__", None))


def trusted(config: Mapping[str, Any]) -> list[str]:
    """Return patterns of what a ``_target_`` may name."""
    return [*OWN, *(f"{name}.*" for name in config["trusted_targets"])]


def _is_under(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
