"""What a sweep needs besides runs that can start: the packages of its sampler and pruner, and a folder for each trial."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from winnow.errors import ConfigError

logger = logging.getLogger(__name__)

PACKAGES = {
    "CmaEsSampler": ("cmaes",), "GPSampler": ("scipy", "torch"), "QMCSampler": ("scipy",), "WilcoxonPruner": ("scipy",),
}  # fmt: skip
"""Optuna's samplers and pruners → what they import when they are first used, which may be in the middle of a night."""
OF_A_JOB = ("hydra.job.", "hydra:job.")
"""What differs from job to job in a config of Hydra's."""


def require_packages(node: Any, key: str) -> None:
    """Raise ConfigError where a class that ``node``, or one inside of it, names needs a package that is not installed."""
    if not isinstance(node, Mapping):
        return
    kind = str(node.get("_target_", "")).rpartition(".")[2]
    lacking = [name for name in PACKAGES.get(kind, ()) if find_spec(name) is None]
    if lacking:
        raise ConfigError(f"{key}: {kind} needs what is not installed: pip install {' '.join(lacking)}")
    for name, value in node.items():
        require_packages(value, f"{key}.{name}")


def require_one_objective(node: Mapping[str, Any], directions: Sequence[str]) -> None:
    """Raise ConfigError for a sampler that knows one objective only, where there are several."""
    if len(directions) > 1 and str(node.get("_target_", "")).endswith(".CmaEsSampler"):
        raise ConfigError(
            f"hydra.sweeper.sampler: CmaEsSampler knows one objective, not {len(directions)}; choose "
            "hydra/sweeper/sampler=tpe, nsgaii or random"
        )


def require_own_folders(config: DictConfig, searched: Sequence[str]) -> None:
    """Raise ConfigError where ``hydra.sweep.subdir`` names one folder for all trials. Another one than Hydra's own is not
    followed: what goes on with a study finds its trials by their numbers."""
    sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    assert isinstance(sweep, dict)
    subdir = str(sweep["subdir"])
    if subdir == "${hydra.job.num}":
        return
    if not any(word in subdir for word in (*OF_A_JOB, *searched)):
        raise ConfigError(
            f"hydra.sweep.subdir={subdir} is one folder for all trials; leave it out: each has one of its own, named by its "
            "number"
        )
    logger.warning("hydra.sweep.subdir=%s is not followed: the trials' folders are named by their numbers", subdir)


def num_independent(node: Mapping[str, Any], n_trials: int) -> int:
    """Return how many trials of a new study the sampler of ``node`` draws without looking at results; 0 where the seed is left
    open, so that each start draws others."""
    kind = str(node.get("_target_", "")).rpartition(".")[2]
    if node.get("seed") is None:
        return 0
    if kind in ("RandomSampler", "GridSampler", "BruteForceSampler"):
        return n_trials
    if kind == "QMCSampler":  # takes its space from the first trial that has ended
        return 1
    first = node.get("n_startup_trials", node.get("population_size"))
    return min(n_trials, first) if isinstance(first, int) else 0
