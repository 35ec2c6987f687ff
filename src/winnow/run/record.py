"""What a run leaves behind besides its checkpoints: facts of its origin, last numbers, pictures, ``result.json``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from winnow.config.flat import flat
from winnow.config.instantiate import instantiate
from winnow.engine.compilation import uncompiled
from winnow.engine.loop import Fit
from winnow.engine.memory import memory_explained
from winnow.engine.precision import Precision
from winnow.engine.seeding import undisturbed_rng
from winnow.errors import WinnowError
from winnow.protocols import Data, Evaluation, Task, Tracker
from winnow.report.run import write_run_report
from winnow.run.plan import RunPlan
from winnow.run.result import RunResult
from winnow.run.tracked import description, log_files, tags_of
from winnow.run_folder import write_whole
from winnow.sweep.current import current_trial
from winnow.tracking.folder import TrackingFolder
from winnow.tracking.provenance import command_line, environment, git_state, source_tags

logger = logging.getLogger(__name__)

_NUM_PICTURES = 12


def log_places(plan: RunPlan) -> None:
    """Say in one line where the run's files, its tracked numbers and what is kept of its data go."""
    tracking, data = plan.recorded["tracking"], plan.recorded["data"]
    tracked = (
        f"tracked in {tracking['uri']}, experiment {tracking.get('experiment')}" if "uri" in tracking else "not tracked"
    )
    places = {"cache": "data cached in", "root": "data in"}
    kept = next((f"; {place} {data[key]}" for key, place in places.items() if data.get(key)), "")
    logger.info("writes to %s; %s%s", plan.folder.absolute(), tracked, kept)


SHORT_EPOCH = 30
"""In steps: an epoch of fewer is over before much is learnt."""
LONG_WARMUP = 0.1
"""As a part of a run's steps."""


def log_short_training(run: Fit) -> None:
    """Say in one line where the warm-up takes much of the run or an epoch has few steps; not where the run is meant to be short,
    or a sweep's."""
    settings, schedule = run.settings, run.step.schedule
    if run.trial is not None or settings.overfit is not None or settings.subset_size is not None:
        return
    found = []
    if schedule.warmup_steps > LONG_WARMUP * schedule.total_steps:
        found.append(f"the warm-up takes {schedule.warmup_steps} of {schedule.total_steps} steps")
    if schedule.steps_per_epoch < SHORT_EPOCH:
        found.append(f"an epoch has {schedule.steps_per_epoch} steps")
    if found:
        logger.info(
            "a small set: %s; smaller batches (training.batch_size) or more epochs may do better, and "
            "training.scheduler.warmup_part=0.05 is in proportion; for detectors see +experiment=small_set", " and ".join(found),
        )  # fmt: skip


def record_origin(run: Fit, plan: RunPlan) -> None:
    """Give config, command line, code and machine, to the tracker and to the run folder, before the first step."""
    folder = plan.folder
    git = git_state(Path.cwd())
    facts = {"command": command_line(), "git_commit": git.commit if git else None, **environment()}
    write_whole(folder / "environment.json", json.dumps(facts, indent=2) + "\n")
    tracker = run.tracker
    tracker.log_params(flat(plan.recorded))
    tracker.set_tags({
        **source_tags(git),
        "winnow.command": facts["command"] or "",
        "winnow.data_fingerprint": run.data.fingerprint,
        "winnow.stage": plan.name,
        **trial_tags(),
        **tags_of(plan, folder),
        **description(plan, facts["command"] or ""),
    })  # fmt: skip
    for name in ("config.yaml", "environment.json"):
        tracker.log_artifact(folder / name)
    if git is not None and git.diff:  # files that git does not know make no patch
        write_whole(folder / "git_diff.patch", git.diff)
        tracker.log_artifact(folder / "git_diff.patch")


def trial_tags() -> dict[str, str]:
    """Return the tags that say which trial of which study the run is; none outside of a sweep."""
    current = current_trial()
    if current is None:
        return {}
    seed = {f"winnow.{current.repeated}": str(current.seed)} if current.seed is not None else {}
    return {"winnow.study": current.study, "winnow.trial": str(current.number), **seed}


def record_end(run: Fit, plan: RunPlan, status: str) -> None:
    """Track the cost, pictures, page and files of a run that came to its end."""
    state, tracker = run.state, run.tracker
    tracker.log_metrics(state.cost.metrics(), state.step)
    if run.data.num_val_batches():
        # What comes after the training must not make a failure of it.
        try:
            tracker.log_artifact(
                draw_val_grid(run, instantiate(plan.config, "evaluation"), plan.folder / "pictures"), "pictures"
            )
        except WinnowError as error:
            logger.error("no pictures of the validation images: %s", error)
    if plan.settings.report and current_trial() is None:
        write_page(run, plan, status)
    if plan.settings.tracking.get("log_checkpoints"):
        for path in (run.checkpoints.best, run.checkpoints.last):
            if path.exists():
                tracker.log_artifact(path, "checkpoints")


def record_result(run: Fit, plan: RunPlan, result: RunResult) -> None:
    """Track how the run ended: in its description, its log, and a copy of ``result.json``.

    The file itself is written when the tracker has its last word: until then a kill must find that nothing was concluded.
    """
    run.tracker.set_tags(description(plan, command_line() or "", run.state.best, result.status))
    log_files(run.tracker, plan.folder)
    log_result(run.tracker, plan.folder, result)


def log_result(tracker: Tracker, folder: Path, result: RunResult) -> None:
    """Track a copy of ``result.json`` from the tracker's own folder, where it has one."""
    copies = TrackingFolder.of_run(folder).path
    if not copies.is_dir():
        return
    try:
        result.write(copies)
    except OSError as error:
        logger.warning("result.json is not tracked: %s", error)
        return
    tracker.log_artifact(copies / "result.json")


def write_page(run: Fit, plan: RunPlan, status: str) -> None:
    """Write the run's page and track it. It is about a run that has ended well: whatever goes wrong here is a warning."""
    try:
        evaluation: Evaluation = instantiate(plan.config, "evaluation")
        page = write_run_report(plan.folder, evaluation, run.data, result=asdict(result_of(run, status, None)))
    except Exception as error:  # noqa: BLE001
        logger.warning("no page about the run: %s: %s", type(error).__name__, error)
        return
    run.tracker.log_artifact(page)
    logger.info("a page about the run: %s", page.absolute())


def draw_val_grid(run: Fit, evaluation: Evaluation, folder: Path) -> Path:
    """Draw the first validation images with what was found and what is true, by the weights that were evaluated; return the
    file."""
    weights = run.step.ema.applied() if run.step.ema is not None else nullcontext()
    run.task.model.eval()
    seen: list[tuple[Any, Any]] = []
    with weights, torch.inference_mode():
        for host_batch in run.data.preview(_NUM_PICTURES, run.sizes.final):
            with memory_explained([host_batch], run.step.precision, "the pictures"), run.step.precision.autocast():
                batch = host_batch.to(run.device, run.step.precision.memory_format)
                seen.append((host_batch, run.task.predictions(run.task.forward(batch), batch)))
    folder.mkdir(parents=True, exist_ok=True)
    return evaluation.draw(seen, run.data.classes, folder)


def epoch_drawer(
    evaluation: Evaluation,
    task: Task,
    data: Data,
    image_size: int,
    precision: Precision,
    tracker: Tracker,
    folder: Path,
) -> Callable[[int], None] | None:
    """Return what draws the pictures of an epoch into ``folder``, None where the evaluation draws none. It disturbs neither the
    weights nor random numbers, and what can't be drawn ends no run."""
    draws: Callable[..., Path | None] | None = getattr(evaluation, "draw_epoch", None)
    if draws is None:
        return None

    def draw(epoch: int) -> None:
        was_training = task.model.training
        task.model.eval()
        batches = (
            batch.to(precision.device, precision.memory_format) for batch in data.preview(_NUM_PICTURES, image_size)
        )
        try:
            with uncompiled(), undisturbed_rng(), torch.inference_mode(), precision.autocast():
                folder.mkdir(parents=True, exist_ok=True)
                path = draws(task, batches, folder, epoch)
        except (WinnowError, OSError) as error:
            logger.error("no picture of epoch %d: %s", epoch, error)
            return
        finally:
            task.model.train(was_training)
        if path is not None:
            tracker.log_artifact(path, "pictures")

    return draw


def result_of(run: Fit, status: str, reason: str | None) -> RunResult:
    """Return what ``result.json`` says of the run as it stands."""
    state, checkpoints = run.state, run.checkpoints
    return RunResult(
        status=status,
        objective=state.best.value if state.best else None,
        metrics=dict(state.evaluation),
        best_metrics=dict(state.best_metrics),
        best=asdict(state.best) if state.best else None,
        epochs=state.epoch,
        steps=state.step,
        cost=asdict(state.cost),
        checkpoint_best=str(checkpoints.best) if checkpoints.best.exists() else None,
        checkpoint_last=str(checkpoints.last) if checkpoints.last.exists() else None,
        mlflow_run_id=run.tracker.run_id,
        seconds=state.cost.seconds,
        reason=reason,
    )
