"""The choices of ``hydra/sweeper/pruner`` with every argument and its default; read at Hydra's discovery, so it imports
nothing but Hydra's store.

Arguments of Optuna's pruners have Optuna's defaults, but for those that Optuna would work out by itself ("auto"): each job of a
sweep would work out its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class MedianPrunerConfig:
    """Stops a trial whose best value so far is below the median of the completed trials at the same epoch."""

    _target_: str = "optuna.pruners.MedianPruner"
    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    interval_steps: int = 1
    n_min_trials: int = 1


@dataclass
class MedianThresholdPrunerConfig:
    """Median pruning of trials that are still below ``threshold``, and of any trial below ``floor``."""

    _target_: str = "winnow.sweep.pruners.MedianThresholdPruner"
    # null: training.max_epochs
    max_epochs: int | None = None
    # the median acts only on trials below it; null: on all
    threshold: float | None = None
    # below it a trial is stopped whatever the median, from floor_from_epoch on; null: never
    floor: float | None = None
    floor_from_epoch: int | None = None
    n_startup_trials: int = 8
    # null: a fifth of the epochs, at least 2
    n_warmup_steps: int | None = None
    n_min_trials: int = 3
    interval_steps: int = 1


@dataclass
class ForecastPrunerConfig:
    """Stops a trial whose forecast final value plus ``z`` standard deviations is worse than the best finished one."""

    _target_: str = "winnow.sweep.pruners.ForecastPruner"
    # null: training.max_epochs
    max_epochs: int | None = None
    # 2 is cautious
    z: float = 1.0
    # they run to the end, and nothing is pruned while fewer have finished
    n_startup_trials: int = 6
    # null: a fifth of the epochs, at least 2
    n_warmup_steps: int | None = None
    # null: a tenth of the epochs, at least 1
    interval_steps: int | None = None


@dataclass
class HyperbandPrunerConfig:
    """Several brackets of successive halving, each with another first rung."""

    _target_: str = "optuna.pruners.HyperbandPruner"
    min_resource: int = 1
    # null: training.max_epochs
    max_resource: int | None = None
    reduction_factor: int = 3
    bootstrap_count: int = 0


@dataclass
class SuccessiveHalvingPrunerConfig:
    """At epochs ``min_resource`` · ``reduction_factor``^k only the best 1/``reduction_factor`` go on."""

    _target_: str = "optuna.pruners.SuccessiveHalvingPruner"
    min_resource: int = 1
    reduction_factor: int = 4
    min_early_stopping_rate: int = 0
    bootstrap_count: int = 0


@dataclass
class PatientPrunerConfig:
    """Asks ``wrapped_pruner`` only about trials that have not improved for ``patience`` epochs; null: stops them at once."""

    _target_: str = "optuna.pruners.PatientPruner"
    # another: hydra/sweeper/pruner@hydra.sweeper.pruner.wrapped_pruner=forecast
    defaults: list[Any] = field(default_factory=lambda: [{"/hydra/sweeper/pruner@wrapped_pruner": "median"}, "_self_"])
    wrapped_pruner: Any = MISSING
    patience: int = 5
    min_delta: float = 0.0


@dataclass
class ThresholdPrunerConfig:
    """Stops a trial whose value is below ``lower`` or above ``upper``; one of them must be given."""

    _target_: str = "optuna.pruners.ThresholdPruner"
    lower: float | None = None
    upper: float | None = None
    n_warmup_steps: int = 0
    interval_steps: int = 1


@dataclass
class WilcoxonPrunerConfig:
    """Signed-rank test of a trial's values against the best trial's, step by step; for steps that are folds or samples."""

    _target_: str = "optuna.pruners.WilcoxonPruner"
    p_threshold: float = 0.1
    n_startup_steps: int = 2


@dataclass
class NoPrunerConfig:
    """Every trial runs to its end."""

    _target_: str = "optuna.pruners.NopPruner"


PRUNERS: dict[str, Any] = {
    "median": MedianPrunerConfig,
    "median_threshold": MedianThresholdPrunerConfig,
    "forecast": ForecastPrunerConfig,
    "hyperband": HyperbandPrunerConfig,
    "successive_halving": SuccessiveHalvingPrunerConfig,
    "patient": PatientPrunerConfig,
    "threshold": ThresholdPrunerConfig,
    "wilcoxon": WilcoxonPrunerConfig,
    "none": NoPrunerConfig,
}


for _name, _node in PRUNERS.items():
    ConfigStore.instance().store(
        group="hydra/sweeper/pruner", name=_name, node=_node, provider="winnow_sweeper", replace=False
    )
