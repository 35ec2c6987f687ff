"""The runs that each configuration has: one, one with every seed, or one on every fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra_plugins.winnow_sweeper._settings import SweeperSettings
from hydra_plugins.winnow_sweeper._space import SearchSpace, bare
from winnow.errors import ConfigError
from winnow.sweep.trial import SEED_KEY

FOLD_KEY, FOLDS_KEY = "data.fold", "data.folds"


def with_repeats(settings: SweeperSettings, base: Mapping[str, Any], space: SearchSpace) -> SweeperSettings:
    """Return ``settings`` with the numbers that ``repeat_over`` goes through: all folds, unless ``seeds`` name them. Raises
    ConfigError where nobody names them, and for a key that the config lacks or that is searched."""
    key = settings.repeat_over
    if key is None:
        return settings
    words = f"hydra.sweeper.repeat_over={key}"
    if key != SEED_KEY and _value(base, key) is None:
        raise ConfigError(f"{words}: the config has no such key")
    if key in map(bare, space.distributions):
        raise ConfigError(f"{words}: this key is searched too")
    if key == FOLD_KEY:
        folds = _value(base, FOLDS_KEY)
        if not isinstance(folds, int):
            raise ConfigError(f"{words} needs the number of folds: data.folds=5")
        wrong = [number for number in settings.seeds or () if not 0 <= number < folds]
        if wrong:
            raise ConfigError(f"hydra.sweeper.seeds={settings.seeds}: {wrong[0]} is no fold of data.folds={folds}")
        return settings if settings.seeds is not None else settings.model_copy(update={"seeds": list(range(folds))})
    if settings.seeds is None:
        raise ConfigError(f"{words} needs the numbers that it is to go through: hydra.sweeper.seeds=[0,1,2]")
    return settings


def _value(base: Mapping[str, Any], key: str) -> Any:
    value: Any = base
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
