"""``winnow preflight``: a run is composed, built and stepped a few times before a night is spent on it; nothing of it is kept."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from winnow.checkpoints.state_dicts import mark_loaded
from winnow.config.compose import Composed, find_config_folder
from winnow.config.instantiate import instantiate
from winnow.config.plain import Config
from winnow.config.schema import RunSettings
from winnow.engine.loop import Fit
from winnow.engine.ranks import Ranks
from winnow.engine.seeding import choose_seed
from winnow.engine.snapshot import Snapshot
from winnow.engine.step import TrainStep
from winnow.errors import WinnowError
from winnow.preflight.checks import try_out
from winnow.preflight.report import Finding, PreflightReport, StageReport
from winnow.preflight.stages import Models, stages_of, take_weights
from winnow.run.build import build, require_batches, take_up
from winnow.run.leader import shared_threads
from winnow.run.rehearsal import model_of
from winnow.run.resume import Found, config_of_run, path_of
from winnow.run.tracker import choose_tracker
from winnow.settings import build_settings
from winnow.tracking.null_tracker import NullTracker


def preflight(
    config_folder: Path, overrides: Sequence[str], out: Path, seconds: float, added: Path | None = None
) -> PreflightReport:
    """Check what ``python train.py --config-dir ADDED OVERRIDES`` would do; pictures go to ``out``, nothing is written elsewhere.
    Up to ``seconds`` go into timing it.

    Raises ConfigError where ``config_folder`` is no conf/. What else is wrong stands in the report.
    """
    began = time.monotonic()
    find_config_folder(config_folder)
    report = PreflightReport()
    try:
        stages = stages_of(config_folder, overrides, added)
    except WinnowError as error:
        report.errors.append(_finding("config", error))
        stages = []
    models: Models = {}
    for composed in stages:
        report.stages.append(preflight_stage(composed, models, out, seconds / len(stages)))
    report.seconds = time.monotonic() - began
    return report


def preflight_stage(composed: Composed, models: Models, out: Path, seconds: float) -> StageReport:
    """All checks of one run; what raises a WinnowError ends them, for the next ones need it. ``models`` are those of the stages
    before; its own is added."""
    report = StageReport(str(composed.config["stage"]["name"]), str(composed.run_folder))
    check = "config"
    with _warnings_kept(report.warnings), contextlib.ExitStack() as stack:
        try:
            config, found = config_of_run(composed.config, composed.run_folder, composed.overrides)
            settings = build_settings(RunSettings, config, "")
            choose_tracker(config, composed.run_folder)  # its settings; it touches nothing before it is entered
            report.num_ranks = settings.training.num_ranks or 1
            if report.num_ranks > 1:
                stack.enter_context(shared_threads(report.num_ranks))
            check = "build"
            run = build_alone(config, settings, composed, found, models, report.num_ranks)
            models[settings.stage.name] = model_of(run)
            evaluation = instantiate(config, "evaluation")
            for check in try_out(run, evaluation, report, out, seconds):  # noqa: B007 - the check that is under way when one raises
                pass
        except WinnowError as error:
            report.errors.append(_finding(check, error))
    return report


def build_alone(
    config: Config, settings: RunSettings, composed: Composed, found: Found | None, models: Models, num_ranks: int
) -> Fit:  # fmt: skip
    """The run as its rank 0 begins it, weights loaded or restored; of many ranks the others are left out, so that each step
    is this rank's share of one."""
    seed = choose_seed(settings.training.seed)
    folder = composed.run_folder
    ranks = Ranks(0, num_ranks, 0, num_ranks)
    run = build(config, settings, seed, folder, NullTracker(folder), composed.choices, ranks)
    if num_ranks > 1:
        built, training = run.step, settings.training
        step = TrainStep(
            run.task, built.optimizer, built.schedule, built.precision, training.clip_grad_norm, built.ema,
            training.max_nonfinite,
        )  # fmt: skip
        metadata = {"data_fingerprint": run.data.fingerprint}
        run = replace(run, step=step, snapshot=Snapshot(step, config, list(run.data.classes), metadata))
    if found is not None:
        take_up(run, found)
        require_batches(run.task, settings.training, run.data, run.state.sample)
        mark_loaded(run.task.model, [name for name, _ in run.task.model.named_parameters()], str(path_of(found)))
    else:
        take_weights(run, settings, folder, models)
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
