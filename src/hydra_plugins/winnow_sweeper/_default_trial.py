"""The configuration that a sweep starts from, as a trial: what runs without a search is tried before what a sampler draws."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hydra_plugins.winnow_sweeper._space import SearchSpace, bare

logger = logging.getLogger(__name__)

DEFAULT = "winnow:default"
"""Attribute of the trial that is the default configuration."""
_MISSING = object()


def default_params(space: SearchSpace, config: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the values that ``config`` (plain, with the group ``choices`` that made it) has for each searched key, as a study
    holds them; None, with a line in the log, where one of them has none or lies outside the space, and where nothing is searched.
    """
    params = {}
    for name in space.distributions:
        key = bare(name)
        value = choices[key] if key in choices else _value_at(config, key)
        if value is _MISSING:
            logger.info("the default configuration is not tried first: it has no %s", key)
            return None
        try:
            params[name] = space.stored(name, value)
        except ValueError as error:
            logger.info("the default configuration is not tried first: it has %s=%s, %s", key, value, error)
            return None
    return params or None


def _value_at(config: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return _MISSING
        config = config[part]
    return config
