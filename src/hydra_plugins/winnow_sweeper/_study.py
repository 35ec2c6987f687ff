"""From a checked plan to a running sweep: open the study, build the parts, run, conclude."""

from __future__ import annotations

import functools
import json
import logging
import zlib
from collections.abc import Mapping
from typing import Any

import optuna
from filelock import FileLock
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.winnow_sweeper._definition import Definition
from hydra_plugins.winnow_sweeper._dispatching import open_slots
from hydra_plugins.winnow_sweeper._dry_run import dry_run
from hydra_plugins.winnow_sweeper._judge import Judge
from hydra_plugins.winnow_sweeper._limits import Limits
from hydra_plugins.winnow_sweeper._loop import INTERRUPTED, SweepLoop
from hydra_plugins.winnow_sweeper._plan import Plan, make_plan
from hydra_plugins.winnow_sweeper._supply import Supply
from hydra_plugins.winnow_sweeper._trial_task import TrialTask
from winnow.errors import ConfigError
from winnow.sweep.outcome import OVERRIDES
from winnow.sweep.ownership import Claims
from winnow.sweep.storage import create_study_once
from winnow.sweep.table import rows_of
from winnow.sweep.trial import StudyRef

logger = logging.getLogger(__name__)

DEFINITION = "winnow:definition"
CHANGES = "winnow:changes"
PARENTS = "winnow:parents"
EXPLICIT = "winnow:explicit"
# What an interrupted sweep exits with, as an interrupted run does.
EXIT_INTERRUPTED = 75


def run_sweep(
    raw: Mapping[str, Any], hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig,
    arguments: list[str],
) -> None:  # fmt: skip
    """The whole sweep. Raises ConfigError before anything starts, SweepFailedError where trials keep failing; an interrupted
    one ends the process with ``EXIT_INTERRUPTED``."""
    plan = make_plan(raw, hydra_context, task_function, config, arguments)
    if plan.settings.dry_run:
        dry_run(plan)
        return
    reason = sweep(plan)
    if reason == INTERRUPTED:
        raise SystemExit(EXIT_INTERRUPTED)


def sweep(plan: Plan) -> str | None:
    """Run this process's share of the study; why it ended early, or None."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with FileLock(plan.folder / ".sweep.lock"):
        study = open_study(plan)
        enqueue(plan, study)
    ...
