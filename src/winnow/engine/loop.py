"""The training loop. Knows no Hydra, no Optuna, no MLflow, and not what a box is."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from winnow.checkpoints.disk_room import warn_of_little_room
from winnow.checkpoints.folder import CheckpointFolder
from winnow.checkpoints.host_copy import state_bytes
from winnow.checkpoints.state_dicts import frozen_parameters
from winnow.engine.best_arrays import write_best_arrays
from winnow.engine.evaluate import evaluate
from winnow.engine.frozen import changing_tensors, frozen_checksum, require_same_frozen
from winnow.engine.progress import Progress
from winnow.engine.ranks import Ranks
from winnow.engine.recovery import StoppedWaiting, retry_when_data_returns, save_on_failure
from winnow.engine.restorable import require_content
from winnow.engine.schedule import LrSchedule, SizeSchedule
from winnow.engine.seeding import set_rng_state
from winnow.engine.settings import TrainingSettings
from winnow.engine.snapshot import Snapshot
from winnow.engine.state import TrainState
from winnow.engine.step import TrainStep
from winnow.engine.stop import StopRequest
from winnow.engine.transfer import with_next
from winnow.errors import CheckpointError, DataError, WinnowError
from winnow.protocols import Batch, Data, Metric, Task, Tracker, Trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """The parts of one run, as ``winnow.run.build`` puts them together."""

    task: Task
    data: Data
    step: TrainStep
    state: TrainState
    settings: TrainingSettings
    sizes: SizeSchedule
    checkpoints: CheckpointFolder
    snapshot: Snapshot
    tracker: Tracker
    trial: Trial | None
    progress: Progress
    draw_epoch: Callable[[int], None] | None = None
    """Draws something of the weights that an epoch was evaluated with, given its number."""

    @property
    def ranks(self) -> Ranks:
        return self.step.ranks

    @property
    def device(self) -> torch.device:
        return self.step.precision.device

    @property
    def total_steps(self) -> int:
        return self.step.schedule.total_steps


def fit(run: Fit, stop: StopRequest) -> str:
    """Train until the end or a reason to stop; ``completed``, ``early_stopped``, ``pruned`` or ``interrupted``.

    The state, the checkpoints and the tracker hold what came out, on disk. All ranks come to the same decisions at the same
    steps; only rank 0 writes. Raises DivergedError, DataError, MemoryExhaustedError, RankError.
    """
    with run.checkpoints if run.ranks.is_main else nullcontext():
        save = partial(save_if_single_rank, run)
        advice = f"go on with: training.resume={run.checkpoints.last}"
        try:
            with save_on_failure(save, lambda: not run.step.is_mid_update, advice):
                return fit_epochs(run, stop, save)
        except StoppedWaiting:
            save_if_single_rank(run)
            return "interrupted"


def fit_epochs(run: Fit, stop: StopRequest, save: Callable[[], None]) -> str:
    state, settings = run.state, run.settings
    broadcast_weights(run, is_first=True)
    report_again(run)
    while not is_finished(run):
        if state.step < run.total_steps:
            retry_when_data_returns(partial(train_one_epoch, run, stop), save, stop)
        if run.ranks.any(stop.requested):
            save_last(run)
            return "interrupted"
        metrics, judged = state.epoch_losses.means(), list[Metric]()
        evaluated = is_evaluation_due(run, state.epoch + 1)
        if evaluated and run.data.num_val_batches():
            broadcast_weights(run)
            metrics |= retry_when_data_returns(partial(evaluate_weights, run, judged.append), save, stop)
        # Only now, so that a run that is stopped in its evaluation begins that again.
        state.epoch += 1
        state.sample = 0
        state.metrics = metrics
        is_best = evaluated and state.take_note(metrics, settings.early_stopping.min_delta)
        if is_best and judged:
            write_best_arrays(judged[-1], run.checkpoints.folder.parent, state.epoch, state.step)
        finish_epoch(run, is_best)
        if evaluated and run.ranks.any(is_pruned(run)):
            return "pruned"
    if is_stalled(run):
        logger.info("stopped at epoch %d: no gain in %d evaluations", state.epoch, state.evaluations_without_gain)
        return "early_stopped"
    return "completed"


def train_one_epoch(run: Fit, stop: StopRequest) -> None:
    """Take the steps left in the epoch after ``state.epoch``, or fewer if ``max_iter`` or a stop request comes first."""
    state, settings = run.state, run.settings
    epoch = state.epoch + 1
    began, waited, images = time.perf_counter(), 0.0, 0
    batches = run.data.train_batches(epoch, run.sizes.size(epoch), start_sample=state.sample)
    num_batches, num_left = run.data.num_train_batches(), run.data.num_train_batches(state.sample)
    run.task.model.train()
    with run.progress.task(f"epoch {epoch}", num_batches, done=num_batches - num_left) as advance:
        groups = with_next(in_groups(batches, settings.accumulate), run.step.transfer.is_ahead)
        for (group, following), seconds in timed(groups):
            waited += seconds
            terms = run.step(group, state.step, following)
            state.step += 1
            own = (count_samples(group), count_images(group), sum(math.prod(batch.shape) for batch in group))
            num_samples, num_images, num_pixels, num_stopping = map(int, run.ranks.sum(*own, stop.requested))
            state.sample += num_samples
            require_samples_left(run, "the batches read so far end", DataError, run.state.sample, run.state.epoch)
            state.cost.add(num_images, num_pixels)
            images += num_images
            if terms is not None:
                state.interval.add(terms)
                state.epoch_losses.add(terms)
            loss = log_interval(run) if state.step % settings.log_interval == 0 else None
            for _ in group:
                advance(samples=num_samples // len(group), loss=loss)
            if not run.checkpoints.has_room:  # only now does the optimizer have a state to be copied
                prepare_saves(run)
            if num_stopping or state.step >= run.total_steps:
                break
            if settings.save_every_steps is not None and state.step % settings.save_every_steps == 0:
                save_last(run)
    if run.step.first_look is not None and run.ranks.is_main:
        logger.warning("epoch %d: no step so far held anything to learn from; are the samples without targets?", epoch)
    seconds = time.perf_counter() - began
    state.cost.seconds += seconds
    run.tracker.log_metrics({**speed(images, seconds, waited, run.device), **run.step.counters()}, state.step)


def evaluate_weights(run: Fit, keep: Callable[[Metric], None] | None = None) -> dict[str, float]:
    """Evaluate the EMA weights where there are any, always at the final image size; the raw ones too if that is asked for
    (training.ema.also_raw). ``keep`` gets the metric of the former."""
    began = time.perf_counter()
    parts = (run.task, run.data, run.sizes.final, run.step.precision, run.progress, run.ranks)
    with run.step.ema.applied() if run.step.ema is not None else nullcontext():
        metrics = evaluate(*parts, keep=keep)
        if run.draw_epoch is not None and run.ranks.is_main:
            run.draw_epoch(run.state.epoch + 1)
    if run.settings.ema.also_raw:
        metrics |= {f"val_raw/{name.removeprefix('val/')}": value for name, value in evaluate(*parts).items()}
    run.state.cost.seconds += time.perf_counter() - began
    return metrics


def finish_epoch(run: Fit, is_best: bool) -> None:
    """Track, save and say what the epoch gave."""
    state, tracker = run.state, run.tracker
    log_epoch_line(run, is_best)
    tracker.log_metrics({"epoch": float(state.epoch), **state.metrics, **state.cost.metrics()}, state.step)
    if is_best:
        tracker.log_metrics(best_names(state.best_metrics), state.step)
    state.epoch_losses.clear()
    checkpoint = run.snapshot.take(state)
    if run.ranks.is_main:
        run.checkpoints.save_epoch(checkpoint, is_best, recorded=tracker.flush)
    if run.trial is not None:
        run.trial.spend(asdict(state.cost))


def best_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers of the best evaluation by the names that they are tracked by: ``val/map`` as ``best/map``. Those of
    single classes, ``val/map_class/car``, are left out: they would be as many again, and hide what is compared first."""
    found = {f"best/{name.removeprefix('val/')}": value for name, value in metrics.items()}
    return {name: value for name, value in found.items() if name.count("/") == 1}


def prepare_saves(run: Fit) -> None:
    checkpoint = run.snapshot.take(run.state)
    if run.ranks.is_main:
        warn_of_little_room(state_bytes(checkpoint), run.checkpoints, run.step.schedule.total_epochs)
        run.checkpoints.make_room(checkpoint, frozen_parameters(run.task.model).values())
    run.checkpoints.has_room = True


def save_last(run: Fit) -> None:
    checkpoint = run.snapshot.take(run.state)
    if run.ranks.is_main:
        run.checkpoints.save_last(checkpoint, recorded=run.tracker.flush)


def save_if_single_rank(run: Fit) -> None:
    """Save in trouble that one rank may have alone; of many ranks the others would not take part, and the last common
    checkpoint stands."""
    if run.ranks.size == 1:
        save_last(run)


def broadcast_weights(run: Fit, is_first: bool = False) -> None:
    """Give all ranks rank 0's trained weights and buffers: at first, and the running statistics among them before each
    evaluation. Frozen weights are each rank's own; ``is_first`` sends a checksum along. Raises WeightsError where they
    differ."""
    if run.ranks.size == 1:
        return
    average = run.step.ema.own_weights() if run.step.ema is not None else []
    own = [frozen_checksum(run.task.model)] if is_first else []
    sent = [checksum.to(run.device, copy=True) for checksum in own]
    run.ranks.share_tensors([*changing_tensors(run.task.model), *average, *sent])
    for checksum, of_rank_0 in zip(own, sent, strict=True):
        require_same_frozen(checksum, of_rank_0.cpu(), run.ranks.rank)


def is_pruned(run: Fit) -> bool:
    """Report the objective to the trial, which rank 0 has in a sweep; True where it is to stop.

    In its last epoch there is nothing left to save: a run that came to its end is judged by how it ended.
    """
    if run.trial is None:
        return False
    run.trial.report(run.state.metrics.get(run.state.objective.metric, math.nan), run.state.epoch)
    return not is_finished(run) and run.trial.should_prune()


def report_again(run: Fit) -> None:
    """Report what the checkpoint knows of its epoch: a run may be killed between its save and its report."""
    value = run.state.metrics.get(run.state.objective.metric)
    if run.trial is not None and value is not None:
        run.trial.report(value, run.state.epoch)


def is_finished(run: Fit) -> bool:
    """Return true when there is nothing left to do, as in a finished run that is resumed; an epoch in progress is to be
    evaluated.
    """
    return (run.state.step >= run.total_steps and run.state.sample == 0) or is_stalled(run)


def is_stalled(run: Fit) -> bool:
    patience = run.settings.early_stopping.patience
    return patience is not None and run.state.evaluations_without_gain >= patience


def is_evaluation_due(run: Fit, epoch: int) -> bool:
    return epoch % run.settings.eval_interval == 0 or run.state.step >= run.total_steps


def log_interval(run: Fit) -> float | None:
    """Send the mean losses since the last time; the loss, or None where every step of the interval was skipped."""
    state = run.state
    means = state.interval.means()
    state.interval.clear()
    run.tracker.log_metrics({**means, **run.step.learning_rates(), **run.step.counters()}, state.step)
    return means.get("train/loss")


def log_epoch_line(run: Fit, is_best: bool) -> None:
    state = run.state
    total = run.step.schedule.total_epochs
    names = ["val/loss", *(f"val/{name}" for name in run.task.new_metric().headlines)]
    shown = {"loss": state.metrics.get("train/loss"), **{name: state.metrics.get(name) for name in names}}
    shown.setdefault(state.objective.metric, state.metrics.get(state.objective.metric))
    numbers = "  ".join(f"{name} {value:7.4f}" for name, value in shown.items() if value is not None)
    logger.info(
        "epoch %*d/%d  step %6d  %s  %5.0f s%s", len(str(total)), state.epoch, total, state.step, numbers,
        state.cost.seconds, "  best" if is_best else "",
    )  # fmt: skip


def speed(images: int, seconds: float, waited: float, device: torch.device) -> dict[str, float]:
    metrics = {
        "perf/images_per_second": images / max(seconds, 1e-9),
        "perf/data_wait_fraction": waited / max(seconds, 1e-9),
    }
    if device.type == "cuda":
        metrics["perf/gpu_mem_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
    return metrics


def in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of ``size`` batches, the last one perhaps shorter."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def count_samples(batches: Iterable[Batch]) -> int:
    """Return how far ``batches`` take a run along the order of its epoch."""
    return sum(batch.num_samples for batch in batches)


def count_images(batches: Iterable[Batch]) -> int:
    """Return what cost and speed count: a sample may have several images."""
    return sum(batch.shape[0] for batch in batches)


def require_samples_left(run: Fit, what: str, error: type[WinnowError], position: int, epoch: int) -> None:
    """Raise ``error`` where ``what`` at the sample ``position``, past the end of an epoch: what is left would never be trained
    on."""
    end = run.data.num_train_samples
    if position > end:
        raise error(
            f"{what} at sample {position} of epoch {epoch + 1}, but the data set has {end} training samples; "
            "Batch.num_samples must count samples, not their images"
        )


def timed(items: Iterable[Any]) -> Iterator[tuple[Any, float]]:
    """Yield each item with the seconds it was waited for."""
    iterator = iter(items)
    while True:
        began = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        yield item, time.perf_counter() - began


def restore(run: Fit, checkpoint: dict[str, Any], path: Path) -> None:
    """Go on where ``checkpoint`` stood: weights, optimizer, scaler, EMA, counters and random numbers.

    Raises CheckpointError where that is another run's, holds something odd, or stands past the end of its data; nothing of the
    run was touched then.
    """
    require_content(checkpoint, path)
    require_samples_left(run, f"{path} stands", CheckpointError, checkpoint["progress"]["sample"], checkpoint["epoch"])
    run.snapshot.restore(checkpoint, path)
    run.state.load_checkpoint(checkpoint, run.device)
    streams = [checkpoint["rng"], *checkpoint["progress"].get("rng_ranks", [])]
    if run.ranks.rank < len(streams):
        set_rng_state(streams[run.ranks.rank])
    run.step.schedule = LrSchedule.of(run.settings, run.data, run.state)
    before = checkpoint["metadata"].get("resumed_from", ())
    run.snapshot.note_resumed(str(path), run.state.epoch, run.state.step, before)
    logger.info("resumed from %s: epoch %d, step %d", path, run.state.epoch, run.state.step)
