"""The keys of ``hydra/sweeper=winnow`` and their defaults. Imported at every start of Hydra: nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf
from omegaconf import MISSING


@dataclass
class WinnowSweeperConf(OptunaSweeperConf):
    """All of hydra-optuna-sweeper's keys (``sampler``, ``direction``, ``storage``, ``study_name``, ``n_trials``, ``n_jobs``,
    ``max_failure_rate``, ``params``, ``custom_search_space``) and these."""

    _target_: str = "hydra_plugins.winnow_sweeper.winnow_sweeper.WinnowSweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}, {"pruner": "none"}])
    pruner: Any = MISSING
    # slots; auto = one per GPU, or one per two cores where there is none
    n_jobs: Any = "auto"
    # Hydra's sweep syntax per key; plain YAML values are fixed for every trial
    params: Any = None
    # Failures do not end a night's search; max_failures stops one in which nothing works.
    max_failure_rate: float = 1.0
    # names in a winnow run's result.json for the directions of a multi-objective study; null = what the run returns
    metrics: list[str] | None = None
    # auto | list of GPU numbers | null: each slot holds one GPU of its own
    devices: Any = "auto"
    # search for the worse values of a metric: the highest loss, the lowest precision
    force_direction: bool = False
    # JSON, YAML or CSV of explicit trials, run before sampling
    trials_file: str | None = None
    # the configuration that the search starts from is the first trial of a new study, where the space holds it
    enqueue_default: bool = True
    # each configuration is run with every seed and judged by the mean
    seeds: list[int] | None = None
    # the key that `seeds` are given to; data.fold: every fold of data.folds, without naming them; null = training.seed
    repeat_over: str | None = None
    # a crashed or killed trial is tried again, from its own checkpoint
    max_retries: int = 1
    # in a row; null = 3 while nothing has ever completed, 10 from then on
    max_failures: int | None = None
    # wall seconds of this start; running trials are then saved and given back
    timeout: float | None = None
    # {images | images_640 | seconds: amount} over the whole study, whatever number of processes work on it
    max_cost: Any = None
    # draw Optuna's plots at the end
    plots: bool = True
    # compose and validate, print what would run, start nothing
    dry_run: bool = False
    # one job at a time in this very process, for debuggers
    in_process: bool = False
    # a worker process is replaced after so many trials; null = never
    recycle_after: int | None = 50
    # modules that a worker imports before its first trial
    warm_up: list[str] = field(default_factory=list)
    # go on with a study although its definition has changed
    accept_changes: bool = False
    # begin a new study beside the one that is there
    fresh: bool = False


ConfigStore.instance().store(group="hydra/sweeper", name="winnow", node=WinnowSweeperConf, provider="winnow_sweeper")
