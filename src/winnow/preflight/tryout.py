"""A few real steps and evaluation batches of a run: what they give, and what its epochs will take. Changes the weights."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.optim import Optimizer

from winnow.engine.evaluate import evaluate
from winnow.engine.gradients import FirstLook, Gradients, judge, read_gradients
from winnow.engine.loop import Fit, count_images, in_groups, timed
from winnow.engine.progress import Progress
from winnow.engine.transfer import with_next
from winnow.preflight.peak_memory import PeakMemory
from winnow.protocols import Batch, Data

# The first passes of a shape pay for allocations and kernels, and for the compiler where there is one.
WARM_UP_STEPS = 2
LEAST_STEPS = 2
LEAST_LOOKS, MOST_LOOKS = 3, 8


@dataclass(frozen=True)
class FirstSteps:
    """``terms`` of the loss and ``gradients`` in the first step, None where it was not finite or held nothing to learn; the
    larger norms of all steps in ``over_all``; ``num_skipped`` steps were left out by fp16's scaler; ``batches`` of the first
    step, on the host."""

    terms: dict[str, float] | None
    gradients: Gradients | None
    over_all: Gradients | None
    num_steps: int
    num_nonfinite: int
    num_skipped: int
    batches: Sequence[Batch]


@dataclass(frozen=True)
class StepTiming:
    """Of ``num_steps`` steps at ``image_size``; ``largest`` is the shape of the largest batch among them, in images, height
    and width, and ``peak_bytes`` the most memory held."""

    image_size: int
    num_steps: int
    seconds_per_step: float
    wait_fraction: float
    images_per_second: float
    largest: tuple[int, int, int]
    peak_bytes: int


@dataclass(frozen=True)
class EvaluationTiming:
    """``seconds`` that a whole evaluation will take, by ``num_batches`` of its ``of_batches``."""

    seconds: float
    num_batches: int
    of_batches: int
    peak_bytes: int


class GradientRecord(FirstLook):
    """Reads the gradients of each step instead of judging those of the first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, required=False)
        self.first: Gradients | None = None
        self.over_all: Gradients | None = None

    def __call__(self, optimizer: Optimizer, can_learn: bool, step: int) -> bool:
        del step
        if can_learn:
            found = read_gradients(self._model, optimizer)
            self.first = self.first or found
            self.over_all = found if self.over_all is None else self.over_all.merged(found)
        return False

    @property
    def is_sound(self) -> bool:
        return self.over_all is not None and not judge(self.over_all, zero_is_none=True).errors


def take_first_steps(run: Fit) -> FirstSteps:
    """Take the first steps at the size that the run begins with. More than the least number only where a group still lacks a
    gradient: behind a factor that starts at 0 it comes with the second step, with fp16 when the scale has been found."""
    record = run.step.first_look = GradientRecord(run.task.model)
    first_terms: dict[str, float] | None = None
    first_batches: Sequence[Batch] = ()
    num_steps = num_nonfinite = 0
    skipped_before = run.step.skipped
    for batches in endless_steps(run, run.sizes.size(run.state.epoch + 1)):
        terms = run.step(batches, run.state.step + num_steps)
        num_nonfinite += terms is None
        if num_steps == 0:
            first_batches = batches
            first_terms = None if terms is None else {name: float(term) for name, term in terms.items()}
        num_steps += 1
        has_stepped = run.step.skipped - skipped_before < num_steps
        if num_steps >= MOST_LOOKS or (num_steps >= LEAST_LOOKS and record.is_sound and has_stepped):
            break
    run.step.first_look = None
    return FirstSteps(
        first_terms,
        record.first,
        record.over_all,
        num_steps,
        num_nonfinite,
        run.step.skipped - skipped_before,
        first_batches,
    )


def time_steps(run: Fit, image_size: int, seconds: float) -> StepTiming:
    """Time whole steps, with the waiting for their batches, for about ``seconds`` after the warm-up."""
    memory = PeakMemory(run.device)
    memory.restart()
    number = num_images = 0
    waited, began = 0.0, time.perf_counter()
    largest = (0, 0, 0)
    for (batches, following), wait in timed(with_next(endless_steps(run, image_size), run.step.transfer.is_ahead)):
        run.step(batches, run.state.step + number, following)
        largest = max([largest, *(batch.shape for batch in batches)], key=lambda shape: shape[0] * shape[1] * shape[2])
        number += 1
        if number == WARM_UP_STEPS:
            _finish(run.device)
            began = time.perf_counter()
        if number <= WARM_UP_STEPS:
            continue
        waited += wait
        num_images += count_images(batches)
        if time.perf_counter() - began > seconds and number >= WARM_UP_STEPS + LEAST_STEPS:
            break
    _finish(run.device)
    elapsed, num_steps = time.perf_counter() - began, number - WARM_UP_STEPS
    return StepTiming(
        image_size, num_steps, elapsed / num_steps, waited / elapsed, num_images / elapsed, largest, memory.read()
    )


def time_evaluation(run: Fit, seconds: float) -> EvaluationTiming:
    """Time an evaluation as the run will evaluate, on as many batches as about ``seconds`` allow: a start, which comes once,
    and a part that grows with the number of batches, metric included."""
    of_batches = run.data.num_val_batches()
    memory = PeakMemory(run.device)
    memory.restart()
    _evaluate(run, 1, seconds)  # starts the loader's workers
    start, _ = _evaluate(run, 1, seconds)
    whole, num_batches = _evaluate(run, of_batches, seconds)
    per_batch = (whole - start) / (num_batches - 1) if num_batches > 1 else start
    total = whole + max(0.0, per_batch) * (of_batches - num_batches)
    if run.settings.ema.also_raw:
        total *= 2
    return EvaluationTiming(total, num_batches, of_batches, memory.read())


def time_to_first_batch(run: Fit, image_size: int) -> float:
    """Measure how long an epoch's first batch is waited for, once the loader has its workers; part of every epoch."""
    began = time.perf_counter()
    next(run.data.train_batches(run.state.epoch + 1, image_size))
    return time.perf_counter() - began


def endless_steps(run: Fit, image_size: int) -> Iterator[list[Batch]]:
    """Yield the batches of one step after the other, epoch after epoch."""
    run.task.model.train()
    for epoch in itertools.count(run.state.epoch + 1):
        yield from in_groups(run.data.train_batches(epoch, image_size), run.settings.accumulate)


class SomeBatches:
    """The first ``most`` validation batches of ``data``, or fewer where ``seconds`` are over."""

    def __init__(self, data: Data, most: int, seconds: float) -> None:
        self._data = data
        self._most = most
        self._seconds = seconds
        self.num_batches = 0

    def num_val_batches(self) -> int:
        return self._most

    def val_batches(self, image_size: int) -> Iterator[Batch]:
        began = time.perf_counter()
        for batch in itertools.islice(self._data.val_batches(image_size), self._most):
            self.num_batches += 1
            yield batch
            if time.perf_counter() - began > self._seconds:
                return


def _evaluate(run: Fit, most: int, seconds: float) -> tuple[float, int]:
    """Evaluate, and return (seconds, batches)."""
    some = SomeBatches(run.data, most, seconds)
    began = time.perf_counter()
    with run.step.ema.applied() if run.step.ema is not None else nullcontext():
        evaluate(run.task, cast(Data, some), run.sizes.final, run.step.precision, Progress(shown=False))
    return time.perf_counter() - began, some.num_batches


def _finish(device: torch.device) -> None:
    """Wait for a GPU; steps are queued faster than it computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
