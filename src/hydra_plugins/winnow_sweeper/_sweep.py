"""A sweep from its checked plan: dry run of the first trials, open the parts, run, conclude."""

from __future__ import annotations

import contextlib
import functools
import logging
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from hydra_plugins.winnow_sweeper._distribution import allowed
from hydra_plugins.winnow_sweeper._job import Slots
from hydra_plugins.winnow_sweeper._judge import Judge
from hydra_plugins.winnow_sweeper._limits import Limits, SweepFailedError
from hydra_plugins.winnow_sweeper._loop import INTERRUPTED, SweepLoop
from hydra_plugins.winnow_sweeper._notes import recall
from hydra_plugins.winnow_sweeper._plan import Plan, is_winnow_run, make_plan, stages_in
from hydra_plugins.winnow_sweeper._rehearsal import rehearse, show, unmet_requirements
from hydra_plugins.winnow_sweeper._secrets import storage_reference
from hydra_plugins.winnow_sweeper._single_run import Work
from hydra_plugins.winnow_sweeper._slots import num_jobs, open_slots
from hydra_plugins.winnow_sweeper._space import bare
from hydra_plugins.winnow_sweeper._start_checks import StartChecks
from hydra_plugins.winnow_sweeper._study import (
    build_sampler,
    code_overrides,
    extender,
    make_study_folder,
    most_trials,
    num_trials,
    objective_names,
    open_study,
    tell_points,
    turn_of,
    why_all_done,
)  # fmt: skip
from hydra_plugins.winnow_sweeper._supply import Supply
from hydra_plugins.winnow_sweeper._trial_task import TrialTask
from winnow.config.flat import flat
from winnow.config.from_file import require_run_overrides
from winnow.config.lookups import looked_up
from winnow.errors import EXIT_INTERRUPTED, ConfigError
from winnow.masking import mask_output, remember, remember_looked_up
from winnow.output import drop_unwritten_output
from winnow.process import ProcessStamp
from winnow.protocols import Tracker
from winnow.report.page import FILE
from winnow.report.study import write_study_report
from winnow.run.tracker import choose_tracker, log_page
from winnow.run_folder import MadeFolders
from winnow.sweep.claims import Claims
from winnow.sweep.outcome import OWNER
from winnow.sweep.pruners import is_eliminated
from winnow.sweep.report import StudyReport, logging_refusal
from winnow.sweep.shown import record_ranking, record_search
from winnow.sweep.storage import open_storage
from winnow.sweep.stored_study import StoredStudy
from winnow.sweep.table import Row, rows_of
from winnow.sweep.trial import StudyRef
from winnow.tracking.null_tracker import NullTracker

logger = logging.getLogger(__name__)


def run_sweep(
    raw: Mapping[str, Any], hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig,
    arguments: list[str],
) -> None:  # fmt: skip
    """Run the whole sweep. Raises ConfigError before anything starts, SweepFailedError if trials keep failing; an
    interrupted one ends the process with ``EXIT_INTERRUPTED``.
    """
    mask_output()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with StartChecks(is_winnow_run(config)) as checks:
        plan = make_plan(raw, hydra_context, task_function, config, arguments)
        settings, errors = plan.settings, unmet_requirements(plan)
        rehearsed = rehearse(plan, checks, optuna.samplers.RandomSampler() if errors else build_sampler(plan, 0, 0))
    if settings.dry_run:
        show(rehearsed, plan)
        tell_points(plan)
    if rehearsed.errors:
        errors.append("these runs would fail at their start:\n  " + "\n  ".join(rehearsed.errors))
    if errors:
        raise ConfigError("\n".join(errors))
    if settings.dry_run:
        return
    try:
        reason = sweep(plan)
    finally:
        drop_unwritten_output()
    if reason == INTERRUPTED:
        raise SystemExit(EXIT_INTERRUPTED)


def sweep(plan: Plan) -> str | None:
    """Run this process's share of the study; why it ended early, or None."""
    owner = ProcessStamp.this_process()
    with MadeFolders(plan.folder) as made:
        make_study_folder(plan, made)
        storage = open_storage(plan.storage, stamp={OWNER: owner.to_json()}, waits_for_place=True)
        study, plan = open_study(plan, storage, made)
        tracker = study_tracker(plan)
        made.keep()
    tell_points(plan, study)
    failure: SweepFailedError | None = None
    reason: str | None = None
    with tracker:
        report = new_report(plan, study, tracker)
        space = {bare(name): allowed(searched) for name, searched in plan.space.distributions.items()}
        record_search(tracker, plan.name, plan.folder, space, report.objectives)
        claims = Claims(study, storage, owner)
        try:
            with claims.beating(), shown(report, plan), slots_of(plan) as slots:
                reason = new_loop(plan, study, claims, slots, report).run()
        except SweepFailedError as error:
            failure, reason = error, "stopped for too many failures"
        # Not where anything else ended it: a second Ctrl-C means at once, and a storage that is gone has nothing to conclude.
        with logging_refusal("optimization_results.yaml"):
            write_upstream_results(study, plan.folder)
        report.conclude(reason or why_all_done(plan, study), next_commands(plan, reason))
        if plan.base.get("report"):
            write_page(study, plan.folder, tracker)
        record_ranking(tracker, report.rows, plan.folder, space, report.objectives, is_over=reason is None)
        if failure is not None:
            tracker.finish("failed")
            raise failure
        tracker.finish("interrupted" if reason == INTERRUPTED else "completed")
    if plan.is_winnow_run:
        log_page(plan.folder)
    return reason


def write_page(study: optuna.Study, folder: Path, tracker: Tracker) -> None:
    """Write the study's page and track it; whatever goes wrong is a warning."""
    try:
        page = write_study_report(StoredStudy.of(folder, study), folder / FILE)
    except Exception as error:  # noqa: BLE001
        logger.warning("no page about the study: %s: %s", type(error).__name__, error)
        return
    tracker.log_artifact(page)
    logger.info("a page about the study: %s", page.absolute())


@contextlib.contextmanager
def shown(report: StudyReport, plan: Plan) -> Iterator[None]:
    report.open(has_console=not plan.settings.in_process)
    try:
        yield
    finally:
        report.close()


@contextlib.contextmanager
def slots_of(plan: Plan) -> Iterator[Slots]:
    """Open the plan's slots; what runs in them in the end may save, but after a second Ctrl-C it ends at once."""
    settings = plan.settings
    ref = StudyRef(
        plan.name, storage_reference(plan.config, plan.storage), str(plan.folder.absolute()), plan.pruner,
        len(settings.direction),
        tuple(settings.metrics) if settings.metrics else None, tuple(settings.seeds) if settings.seeds else None,
        counts_cost=settings.max_cost is not None, repeated_key=settings.repeated_key,
        searched=tuple(map(bare, plan.space.distributions)),
    )  # fmt: skip
    slots = open_slots(
        Work(plan.hydra_context, TrialTask(plan.task_function, ref), plan.config), num_jobs(plan.settings),
        devices=settings.devices, in_process=settings.in_process, recycle_after=settings.recycle_after,
        warm_up=tuple(settings.warm_up) or (("winnow.run.pipeline",) if plan.is_winnow_run else ()),
    )  # fmt: skip
    at_once = False
    try:
        yield slots
    except KeyboardInterrupt:
        at_once = True
        raise
    finally:
        slots.close(at_once)


def new_loop(plan: Plan, study: optuna.Study, claims: Claims, slots: Slots, report: StudyReport) -> SweepLoop:
    settings = plan.settings
    limits = Limits(
        settings.max_failures, settings.max_failure_rate, slots.size, settings.timeout, settings.max_cost,
        lambda: study.get_trials(deepcopy=False),
    )  # fmt: skip
    for row in rows_of(study.get_trials(deepcopy=False)):
        limits.count(row.outcome, is_new=False)
    supply = Supply(
        study, most_trials(plan, study), plan.space.distributions, lambda params: job_overrides(plan, params),
        extender(plan), claims, settings.seeds, plan.folder if plan.is_winnow_run else None,
        functools.partial(recall, plan.folder), plan.points, turn_of(plan), lambda: limits.spent() is not None,
        settings.repeated_key,
    )  # fmt: skip
    judge = Judge(study, settings.seeds)
    return SweepLoop(supply, slots, judge, limits, claims, report, settings.max_retries, plan.folder)


def job_overrides(plan: Plan, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the overrides of the trial that has ``params`` in the study. Raises ConfigError where one that this command does
    not search would say what is executed."""
    own = plan.space.overrides(params)
    added = [text for name, text in zip(params, own, strict=True) if name not in plan.space.distributions]
    require_run_overrides(added, f"a trial of the study {plan.name!r}")
    return (*plan.space.fixed_overrides, *own)


def study_tracker(plan: Plan) -> Tracker:
    """Return the tracker of the study's own run, parent of its trials' runs; it goes on when the study does."""
    if not plan.is_winnow_run:
        return NullTracker(plan.folder)
    tracking = plan.base["tracking"]
    remember(*map(str, flat(tracking).values()))
    remember_looked_up(looked_up(plan.config))
    named = {**tracking, "run_name": plan.name} if "run_name" in tracking else tracking
    return choose_tracker({**plan.base, "tracking": {**named, "tensorboard": False}}, run_folder=plan.folder)


def new_report(plan: Plan, study: optuna.Study, tracker: Tracker) -> StudyReport:
    floor = getattr(plan.pruner, "floor", None)
    maximize = plan.settings.direction[0] == "maximize"
    return StudyReport(
        study, plan.folder, num_trials(plan, study), objective_names(plan)[0], lambda row: planned_epochs(plan, row),
        lambda trial: is_eliminated(trial.values[0] if trial.values else None, floor, maximize), tracker,
        plan.space.fixed_overrides, plan.settings.plots,
    )  # fmt: skip


def planned_epochs(plan: Plan, row: Row) -> int | None:
    searched, runs = row.params.get("training.max_epochs"), len(plan.settings.seeds or [0])
    epochs = plan.planned_epochs if searched is None else searched * max(1, len(stages_in(plan.base)))
    return int(epochs) * runs if epochs is not None else None


def write_upstream_results(study: optuna.Study, folder: Path) -> None:
    """Write ``optimization_results.yaml`` as hydra-optuna-sweeper does."""
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
    promote = ["winnow", "promote", str(plan.folder), "--top", "3", *code_overrides(plan.config)]
    return [f"winnow study {plan.folder}", shlex.join(promote)]
