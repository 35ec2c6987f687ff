"""One run: from a composed config to what it leaves behind in its folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.initial import initial_weights, load_initial_weights, write_report
from winnow.engine.loop import Fit, fit, is_finished
from winnow.engine.memory import release_memory
from winnow.engine.ranks import Ranks
from winnow.engine.state import TrainState
from winnow.engine.stop import StopRequest
from winnow.errors import DivergedError, MemoryExhaustedError, WinnowError
from winnow.run.build import build, require_batches
from winnow.run.leader import ranks_of_run
from winnow.run.plan import RunPlan
from winnow.run.record import (
    log_places,
    log_short_training,
    record_end,
    record_origin,
    record_result,
    result_of,
)
from winnow.run.result import RunResult, is_concluded
from winnow.run.resume import checkpoint_to_resume, read_found
from winnow.run.tracked import with_run_name
from winnow.run.tracker import choose_tracker
from winnow.run_folder import write_whole

logger = logging.getLogger(__name__)


def train(plan: RunPlan, stop: StopRequest) -> RunResult:
    """Train as planned, from the beginning or on, and leave ``result.json`` behind whatever happens; once more with half the
    batch where memory was short and that is wanted. Raises WinnowError for what the user must mend."""
    with recording_refusal(plan.folder):
        smaller: RunPlan | None = None
        try:
            return fit_in_folder(plan, stop)
        except MemoryExhaustedError as error:
            smaller = with_half_batches(plan)
            if smaller is None:
                raise
            logger.error("%s\ntrying once more with half the batch (training.oom_retry)", error)
        # Outside of the except block: the traceback kept the failed attempt's tensors alive.
        release_memory()
        saved = checkpoint_to_resume("auto", plan.folder)
        return fit_in_folder(smaller if saved is None else replace(smaller, checkpoint=saved.path), stop)


@contextlib.contextmanager
def recording_refusal(folder: Path) -> Iterator[None]:
    """Say so, if what is inside is refused, in the ``result.json`` of ``folder``, unless that holds an earlier result."""
    try:
        yield
    except WinnowError as error:
        if not (folder / "result.json").exists():
            RunResult("failed", reason=str(error)).write(folder)
        raise


def with_half_batches(plan: RunPlan) -> RunPlan | None:
    """Return the plan with half the batch and twice the accumulation, which is the same step; None where that is not wanted or
    not possible."""
    training = plan.settings.training
    if not training.oom_retry or training.batch_size % 2:
        return None
    return plan.with_values("training", batch_size=training.batch_size // 2, accumulate=2 * training.accumulate)


def fit_in_folder(plan: RunPlan, stop: StopRequest) -> RunResult:
    """Build everything that the plan names, and fit it."""
    write_whole(plan.folder / "config.yaml", yaml.safe_dump(plan.recorded, sort_keys=False))
    with ranks_of_run(plan.settings.training.num_ranks) as ranks:
        return fit_as_leader(plan, stop, ranks)


def fit_as_leader(plan: RunPlan, stop: StopRequest, ranks: Ranks) -> RunResult:
    """Fit as rank 0. The others build their parts when this rank's are whole: what is wrong is said once, and what is drawn or
    downloaded is there."""
    tracker = choose_tracker(with_run_name(plan), plan.folder, plan.parent_folder)
    run = build(plan, tracker, ranks)
    training, stage = plan.settings.training, plan.settings.stage
    if plan.checkpoint is not None:
        read_found(plan.checkpoint).restore(run)
        require_batches(run.task, training, run.data, run.state.sample)
        if is_finished(run) and is_concluded(plan.folder):
            ranks.broadcast(None)
            logger.info("this run is finished, nothing was changed; raise training.max_epochs to train on")
            return result_of(run, "completed", None)
    elif training.init_from is not None:
        weights = initial_weights(training.init_from, None if stage.is_alone else plan.folder.parent)
        report = load_initial_weights(
            run.task.model, weights, stage.init_allow_missing, training.frozen_source, ClassHead.of(run.task)
        )
        write_report(report, plan.folder)
    ranks.broadcast(plan.with_absolute_paths())
    with tracker:
        return fit_and_record(run, plan, stop)


def fit_and_record(run: Fit, plan: RunPlan, stop: StopRequest) -> RunResult:
    """Fit inside an open tracker; the status is recorded on every way out."""
    folder = plan.folder
    # The result of an earlier part of this run; without one, a kill from here on is seen to have concluded nothing.
    (folder / "result.json").unlink(missing_ok=True)
    log_places(plan)
    log_short_training(run)
    record_origin(run, plan)
    status, reason = "failed", None
    try:
        status = fit(run, stop)
        if status != "interrupted":
            record_end(run, plan, status)
    except BaseException as error:
        status, reason = how_it_failed(error)
        raise
    finally:
        record_result(run, plan, result_of(run, status, reason))
        run.tracker.finish(status)
        result = result_of(run, status, reason)
        result.write(folder)
    logger.info("%s; best %s; everything is in %s", status, _best_words(run.state), folder)
    return result


def how_it_failed(error: BaseException) -> tuple[str, str | None]:
    """Return (status, reason) of a run that ``error`` ended."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", None
    if isinstance(error, DivergedError | MemoryExhaustedError):
        return "diverged" if isinstance(error, DivergedError) else "out_of_memory", str(error)
    return "failed", f"{type(error).__name__}: {error}"


def _best_words(state: TrainState) -> str:
    best = state.best
    return f"{best.metric} {best.value:.4f} at epoch {best.epoch}" if best else "unknown: nothing was evaluated"
