"""``winnow preflight``: a run is composed, built and stepped a few times before a night is spent on it; nothing of it is kept."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from winnow.builders import is_own
from winnow.checkpoints.state_dicts import mark_drawn, mark_loaded
from winnow.config.compose import compose_command_line
from winnow.config.instantiate import instantiate, target_of, trusted
from winnow.config.project import project_conf
from winnow.engine.loop import Fit
from winnow.engine.snapshot import Snapshot
from winnow.engine.step import TrainStep
from winnow.errors import WinnowError
from winnow.preflight.checks import try_out
from winnow.preflight.report import Finding, PreflightReport, StageReport
from winnow.preflight.shapes import report_shapes
from winnow.preflight.weights import Models, take_weights
from winnow.run.build import require_batches
from winnow.run.leader import shared_threads
from winnow.run.plan import RunPlan
from winnow.run.rehearsal import build_alone, model_of
from winnow.run.resolve import resolve, unfinished
from winnow.run.resume import read_found
from winnow.run.tracker import choose_tracker


def preflight(
    config_folder: Path | None,
    overrides: Sequence[str],
    out: Path,
    seconds: float,
    added: Path | None = None,
    shapes_only: bool = False,
) -> PreflightReport:
    """Check what ``winnow train --config-dir ADDED OVERRIDES`` would do; pictures go to ``out``, nothing is written
    elsewhere. Up to ``seconds`` go into timing it. ``shapes_only``: nothing is run or loaded, the memory is told from shapes.

    Raises ConfigError where ``config_folder`` is no conf/; None chooses as ``project_conf`` does. What else is
    wrong stands in the report.
    """
    began = time.monotonic()
    project_conf(config_folder)
    report = PreflightReport()
    plans: list[RunPlan] = []
    warnings: list[Finding] = []
    with _warnings_kept(warnings):
        try:
            plans = unfinished(resolve(compose_command_line(config_folder, overrides, added)))
        except WinnowError as error:
            report.errors.append(_finding("config", error))
    models: Models = {}
    for plan in plans:
        run_report = shapes_of_run(plan) if shapes_only else preflight_run(plan, models, out, seconds / len(plans))
        report.stages.append(run_report)
    if report.stages:
        report.stages[0].warnings[:0] = warnings
    report.seconds = time.monotonic() - began
    return report


def preflight_run(plan: RunPlan, models: Models, out: Path, seconds: float) -> StageReport:
    """Make all checks of one run; what raises a WinnowError ends them, for the next ones need it. ``models`` are those of the
    stages before; its own is added."""
    report = StageReport(plan.name, str(plan.folder))
    check = "config"
    with _warnings_kept(report.warnings), contextlib.ExitStack() as stack:
        try:
            choose_tracker(plan.config, plan.folder)  # its settings; it touches nothing before it is entered
            report.num_ranks = plan.settings.training.num_ranks or 1
            if report.num_ranks > 1:
                stack.enter_context(shared_threads(report.num_ranks))
            check = "build"
            run = begin_alone(plan, models)
            models[plan.name] = model_of(run)
            evaluation = instantiate(plan.config, "evaluation")
            for check in try_out(run, evaluation, report, out, seconds):  # noqa: B007 - the check that is under way when one raises
                pass
        except WinnowError as error:
            report.errors.append(_finding(check, error))
    return report


def shapes_of_run(plan: RunPlan) -> StageReport:
    """Tell what one run holds in memory, from shapes alone."""
    report = StageReport(plan.name, str(plan.folder))
    with _warnings_kept(report.warnings):
        try:
            report.shapes = report_shapes(plan).to_dict(plan.settings.training.batch_size)
        except WinnowError as error:
            report.errors.append(_finding("shapes", error))
    return report


def begin_alone(plan: RunPlan, models: Models) -> Fit:
    """Return the run as its rank 0 begins it, weights loaded or restored; of many ranks the others are left out, so that each
    step is this rank's share of one."""
    run, training = build_alone(plan), plan.settings.training
    if is_own(target_of(plan.config["model"], "model", trusted(plan.config))):
        mark_drawn(run.task.model)
    if (training.num_ranks or 1) > 1:
        built = run.step
        step = TrainStep(
            run.task, built.optimizer, built.schedule, built.precision, training.clip_grad_norm, built.ema,
            training.max_nonfinite,
        )  # fmt: skip
        metadata = {"data_fingerprint": run.data.fingerprint}
        run = replace(run, step=step, snapshot=Snapshot(step, plan.recorded, list(run.data.classes), metadata))
    if plan.checkpoint is None:
        take_weights(run, plan, models)
        return run
    read_found(plan.checkpoint).restore(run)
    require_batches(run.task, training, run.data, run.state.sample)
    mark_loaded(run.task.model, [name for name, _ in run.task.model.named_parameters()], str(plan.checkpoint))
    return run


def _finding(check: str, error: WinnowError) -> Finding:
    return Finding(check, f"{type(error).__name__}: {error}")


class _Keeper(logging.Handler):
    """Puts what the run would log as a warning into a report, each message once."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__(logging.WARNING)
        self._findings = findings

    def emit(self, record: logging.LogRecord) -> None:
        finding = Finding("log", record.getMessage())
        if finding not in self._findings:
            self._findings.append(finding)


@contextlib.contextmanager
def _warnings_kept(findings: list[Finding]) -> Iterator[None]:
    keeper, logger = _Keeper(findings), logging.getLogger("winnow")
    logger.addHandler(keeper)
    try:
        yield
    finally:
        logger.removeHandler(keeper)
