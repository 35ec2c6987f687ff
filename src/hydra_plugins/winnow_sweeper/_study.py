"""From a checked plan to a running sweep: open the study, build the parts, run, conclude."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra.utils
import optuna
from filelock import FileLock
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import json_to_distribution
from optuna.trial import TrialState
from rich.table import Table

from hydra_plugins.winnow_sweeper._definition import Definition, accepted_changes
from hydra_plugins.winnow_sweeper._devices import visible_devices
from hydra_plugins.winnow_sweeper._dry_run import DryRun, dry_run
from hydra_plugins.winnow_sweeper._judge import Judge
from hydra_plugins.winnow_sweeper._limits import Limits, SweepFailedError
from hydra_plugins.winnow_sweeper._loop import INTERRUPTED, SweepLoop
from hydra_plugins.winnow_sweeper._notes import recall
from hydra_plugins.winnow_sweeper._plan import Plan, make_plan, stages_in
from hydra_plugins.winnow_sweeper._single_run import Work
from hydra_plugins.winnow_sweeper._slots import open_slots
from hydra_plugins.winnow_sweeper._supply import Supply
from hydra_plugins.winnow_sweeper._trial_task import TrialTask
from winnow.console import CONSOLE
from winnow.errors import ConfigError
from winnow.protocols import Tracker
from winnow.sweep.claims import Claims
from winnow.sweep.outcome import OVERRIDES, OWNER
from winnow.sweep.ownership import Owner
from winnow.sweep.pruners import is_eliminated
from winnow.sweep.report import StudyReport
from winnow.sweep.storage import create_study_once, open_storage
from winnow.sweep.stored_study import DESCRIPTION
from winnow.sweep.table import Row, rows_of
from winnow.sweep.trial import StudyRef
from winnow.tracked import choose_tracker
from winnow.tracking.null_tracker import NullTracker

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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rehearsed = rehearse(plan)
    if plan.settings.dry_run:
        show(rehearsed)
    if rehearsed.errors:
        raise ConfigError("these runs would fail at their start:\n  " + "\n  ".join(rehearsed.errors))
    if plan.settings.dry_run:
        return
    reason = sweep(plan)
    if reason == INTERRUPTED:
        raise SystemExit(EXIT_INTERRUPTED)


def rehearse(plan: Plan) -> DryRun:
    """Compose and validate the listed trials, the first of the sampler and every choice: a night must not find a bad one."""
    settings = plan.settings
    return dry_run(
        plan.space, plan.explicit, build_sampler(plan, 0, 0), settings.direction, num_trials(plan),
        len(settings.seeds or [0]), plan.compose, plan.validate, extender(plan),
    )  # fmt: skip


def show(rehearsed: DryRun) -> None:
    table = Table(title="what would run", title_justify="left")
    for column in ("", "epochs", "overrides", "error"):
        table.add_column(column, overflow="fold")
    for row in rehearsed.rows:
        epochs = "" if row.epochs is None else str(row.epochs)
        table.add_row(row.what, epochs, "  ".join(row.overrides), row.error or "")
    CONSOLE.print(table)
    epochs = "unknown" if rehearsed.epochs is None else str(rehearsed.epochs)
    images = "" if rehearsed.images is None else f", {rehearsed.images} images"
    logger.info(
        "at worst, without any pruning: %d runs, %s epochs%s; nothing was started", rehearsed.num_runs, epochs, images
    )


def sweep(plan: Plan) -> str | None:
    """Run this process's share of the study; why it ended early, or None."""
    settings = plan.settings
    plan.folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    owner = Owner.this_process()
    storage = open_storage(plan.storage, stamp={OWNER: owner.to_json()})
    # One process at a time opens and describes the study: those that come second find it whole.
    with FileLock(plan.folder / ".sweep.lock"):
        study = create_study_once(storage, plan.name, settings.direction)
        plan = spelt_as(plan, study)
        describe_study(plan, study)
        enqueue(plan, study)
    ref = StudyRef(
        plan.name, plan.storage, str(plan.folder.absolute()), plan.pruner, len(settings.direction),
        tuple(settings.metrics) if settings.metrics else None, tuple(settings.seeds) if settings.seeds else None,
    )  # fmt: skip
    claims = Claims(study, storage, owner)
    slots = open_slots(
        Work(plan.hydra_context, TrialTask(plan.task_function, ref), plan.config), num_jobs(plan),
        devices=settings.devices, in_process=settings.in_process, recycle_after=settings.recycle_after,
        warm_up=tuple(settings.warm_up) or (("winnow.pipeline",) if plan.is_winnow_run else ()),
    )  # fmt: skip
    limits = Limits(settings.max_failures, settings.max_failure_rate, slots.size, settings.timeout, settings.max_cost)
    for row in rows_of(study.get_trials(deepcopy=False)):
        limits.count(row.outcome, is_new=False)
    supply = Supply(
        study, num_trials(plan), plan.space.distributions, lambda params: job_overrides(plan, params),
        extender(plan), claims, settings.seeds, plan.folder if plan.is_winnow_run else None,
        functools.partial(recall, plan.folder),
    )  # fmt: skip
    judge = Judge(study, settings.seeds)
    with study_tracker(plan) as tracker:
        report = new_report(plan, study, tracker)
        report.open(has_console=not settings.in_process)
        loop = SweepLoop(study, supply, slots, judge, limits, claims, report, settings.max_retries, plan.folder)
        failure: SweepFailedError | None = None
        reason: str | None = None
        try:
            reason = loop.run()
        except SweepFailedError as error:
            failure, reason = error, "stopped for too many failures"
        finally:
            report.close()
        # Not where anything else ended it: a second Ctrl-C means at once, and a storage that is gone has nothing to conclude.
        write_upstream_results(study, plan.folder)
        report.conclude(reason, next_commands(plan, reason))
        if failure is not None:
            tracker.finish("failed")
            raise failure
        tracker.finish("interrupted" if reason == INTERRUPTED else "completed")
    return reason


def spelt_as(plan: Plan, study: optuna.Study) -> Plan:
    """``plan`` with its choices written as the study has them: other quotes in the YAML make no other parameter."""
    stored = study.user_attrs.get(DEFINITION)
    if stored is None:
        return plan
    known = {name: json_to_distribution(text) for name, text in json.loads(stored)["search_space"].items()}
    return replace(plan, space=plan.space.matching(known))


def describe_study(plan: Plan, study: optuna.Study) -> None:
    """Write down what the study searches and give it its sampler. ConfigError where an earlier start searched something else,
    unless changes are accepted."""
    stored = study.user_attrs.get(DEFINITION)
    if stored is not None:
        changes = accepted_changes(Definition.from_json(stored), plan.definition, plan.settings.accept_changes)
        if changes:
            logger.warning("the study goes on although its definition has changed:\n  %s", "\n  ".join(changes))
            study.set_user_attr(CHANGES, [*study.user_attrs.get(CHANGES, []), changes])
    study.set_user_attr(DEFINITION, plan.definition.to_json())
    parents = int(study.user_attrs.get(PARENTS, 0))
    study.set_user_attr(PARENTS, parents + 1)
    study.sampler = build_sampler(plan, parents, len(study.get_trials(deepcopy=False)))
    describe(plan)


def describe(plan: Plan) -> None:
    """``sweep.yaml``: what the study is, for people, ``winnow study`` and ``winnow promote``."""
    address = plan.settings.storage
    OmegaConf.save(
        OmegaConf.create({
            "study_name": plan.name,
            "storage": None if address is None else without_password(address),
            "metric": metric_of(plan),
            "overrides": [str(text) for text in plan.config.hydra.overrides.task],
            "hydra_overrides": [without_password(str(text)) for text in plan.config.hydra.overrides.hydra],
            "search_path": added_sources(plan.config),
            "definition": plan.definition.plain(),
        }),
        plan.folder / DESCRIPTION,
    )  # fmt: skip


def added_sources(config: DictConfig) -> list[str]:
    """Where config groups were found besides conf/ (--config-dir, hydra.searchpath), as Hydra names such places."""
    own = [
        source for source in config.hydra.runtime.config_sources if source.provider not in ("hydra", "main", "schema")
    ]
    return [
        f"file://{Path(source.path).absolute()}" if source.schema == "file" else f"{source.schema}://{source.path}"
        for source in own
    ]


def without_password(address: str) -> str:
    return re.sub(r"(//[^:/@]+):[^@]+@", r"\1:***@", address)


def metric_of(plan: Plan) -> str:
    return str(plan.base["objective"]["metric"]) if plan.is_winnow_run else "value"


def build_sampler(plan: Plan, parents: int, num_trials: int) -> optuna.samplers.BaseSampler:
    """The sampler of the config. A seeded one would propose its first points again at each start, and the same as every other
    process: all but the very first start mix what is there already into the seed."""
    node = OmegaConf.to_container(OmegaConf.create(plan.settings.sampler), resolve=True)
    assert isinstance(node, dict)
    if node.get("seed") is not None and parents > 0:
        node["seed"] = zlib.crc32(f"{node['seed']} {parents} {num_trials}".encode())
    sampler = hydra.utils.instantiate(
        node, _execution_whitelist_=("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
    )
    if isinstance(sampler, functools.partial) and sampler.func is optuna.samplers.GridSampler:
        return sampler(plan.space.grid())
    return sampler


def num_trials(plan: Plan) -> int:
    """``n_trials``, or as many as a grid has points."""
    if plan.settings.sampler.get("_target_", "").endswith("GridSampler") and plan.space.distributions:
        points = math.prod(len(values) for values in plan.space.grid().values())
        if points < plan.settings.n_trials:
            logger.info("the grid has %d points: that many trials", points)
        return min(points, plan.settings.n_trials)
    return plan.settings.n_trials


def num_jobs(plan: Plan) -> int:
    """``n_jobs``; ``auto`` is one slot per GPU, or per two cores where there is none."""
    asked = plan.settings.n_jobs
    if isinstance(asked, int):
        return asked
    if plan.settings.in_process:
        return 1
    gpus = len(visible_devices()) if plan.settings.devices == "auto" else len(plan.settings.devices or ())
    return gpus or max(1, (os.cpu_count() or 1) // 2)


def enqueue(plan: Plan, study: optuna.Study) -> None:
    """Put the listed trials before all others, each once over all starts."""
    there = {trial.user_attrs.get(EXPLICIT) for trial in study.get_trials(deepcopy=False)}
    for index, explicit in enumerate(plan.explicit):
        if index not in there:
            study.enqueue_trial(explicit.params, user_attrs={EXPLICIT: index, OVERRIDES: list(explicit.overrides)})


def job_overrides(plan: Plan, params: Mapping[str, Any]) -> tuple[str, ...]:
    return (*plan.space.fixed_overrides, *plan.space.overrides(params))


def extender(plan: Plan) -> Callable[[optuna.Trial], None] | None:
    """Upstream's ``custom_search_space``: a function of the user's that suggests further, perhaps conditional, parameters."""
    name = plan.settings.custom_search_space
    if name is None:
        return None
    function = hydra.utils.get_object(name)
    return lambda trial: function(plan.config, trial)


def study_tracker(plan: Plan) -> Tracker:
    """The study's own run, parent of its trials' runs; it goes on when the study does."""
    if not plan.is_winnow_run:
        return NullTracker(plan.folder)
    tracking = plan.base["tracking"]
    named = {**tracking, "run_name": plan.name} if "run_name" in tracking else tracking
    return choose_tracker({**plan.base, "tracking": {**named, "tensorboard": False}}, run_folder=plan.folder)


def new_report(plan: Plan, study: optuna.Study, tracker: Tracker) -> StudyReport:
    floor = getattr(plan.pruner, "floor", None)
    maximize = plan.settings.direction[0] == "maximize"
    return StudyReport(
        study, plan.folder, num_trials(plan), metric_of(plan), lambda row: planned_epochs(plan, row),
        lambda trial: is_eliminated(trial.values[0] if trial.values else None, floor, maximize), tracker,
        plan.space.fixed_overrides, plan.settings.plots,
    )  # fmt: skip


def planned_epochs(plan: Plan, row: Row) -> int | None:
    searched, runs = row.params.get("training.max_epochs"), len(plan.settings.seeds or [0])
    epochs = plan.planned_epochs if searched is None else searched * max(1, len(stages_in(plan.base)))
    return int(epochs) * runs if epochs is not None else None


def write_upstream_results(study: optuna.Study, folder: Path) -> None:
    """``optimization_results.yaml`` as hydra-optuna-sweeper writes it."""
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    results: dict[str, Any] = {"name": "optuna"}
    if len(study.directions) > 1:
        results["solutions"] = [{"params": trial.params, "values": trial.values} for trial in study.best_trials]
    elif completed:
        results |= {"best_params": study.best_trial.params, "best_value": study.best_trial.value}
    OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")


def next_commands(plan: Plan, reason: str | None) -> list[str]:
    same = f"the same command again goes on with study {plan.name!r}"
    if reason is not None:
        return [same]
    if not plan.is_winnow_run:
        return []
    return [f"winnow study {plan.folder}", f"winnow promote {plan.folder} --top 3"]
