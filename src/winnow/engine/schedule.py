"""Learning rate and image size as pure functions of the step and the epoch, so that a resumed run needs no history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from winnow.engine.settings import SchedulerSettings, TrainingSettings
from winnow.engine.state import TrainState
from winnow.protocols import Data


@dataclass(frozen=True)
class LrSchedule:
    """What every group's learning rate is multiplied by, over ``total_steps`` optimizer steps.

    ``whole`` is an epoch count and the step at which that epoch ended or will end; those after it take ``steps_per_epoch``.
    It is (0, 0) unless a run is resumed with other batches.
    """

    settings: SchedulerSettings
    total_steps: int
    steps_per_epoch: int
    whole: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, settings: TrainingSettings, data: Data, state: TrainState) -> LrSchedule:
        """Build the schedule for a run that stands at ``state``: the steps it has made, and those that today's settings
        need for what is left.
        """
        per_epoch = -(-data.num_train_batches() // settings.accumulate)
        whole = state.epoch, state.step
        if state.sample:
            whole = state.epoch + 1, state.step - (-data.num_train_batches(state.sample) // settings.accumulate)
        total = whole[1] + (settings.max_epochs - whole[0]) * per_epoch
        if settings.max_iter is not None:
            total = min(total, settings.max_iter)
        return cls(settings.scheduler, max(total, state.step), per_epoch, whole)

    @property
    def total_epochs(self) -> int:
        """Return the number of epochs begun when the last step is made."""
        epoch, step = self.whole
        return epoch - (step - self.total_steps) // self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Return how many steps the warm-up takes: never more than a third of the run."""
        part = self.settings.warmup_part
        wanted = self.settings.warmup_steps if part is None else round(part * self.total_steps)
        return min(wanted, self.total_steps // 3)

    def factor(self, step: int) -> float:
        """Return the multiplier for the update after ``step`` finished ones.

        Warm-up rises linearly from ``warmup_factor``; the cosine then falls to ``min_factor`` at the last step (Loshchilov &
        Hutter 2017, without restarts).
        """
        settings = self.settings
        warmup = self.warmup_steps
        ramp = 1.0 if step >= warmup else settings.warmup_factor + (1 - settings.warmup_factor) * step / warmup
        if settings.name == "multistep":
            ends = (self.whole[1] + (epoch - self.whole[0]) * self.steps_per_epoch for epoch in settings.milestones)
            passed = sum(step >= end for end in ends)
            return ramp * settings.gamma**passed
        if settings.name == "cosine" and step >= warmup:
            progress = (step - warmup) / max(1, self.total_steps - warmup)
            return settings.min_factor + (1 - settings.min_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return ramp


@dataclass(frozen=True)
class SizeSchedule:
    """Training image size per epoch; ``entries`` are (first epoch, size), rising from epoch 1."""

    entries: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, schedule: Sequence[tuple[int, int]] | None, image_size: int) -> SizeSchedule:
        return cls([(1, image_size)] if schedule is None else list(schedule))

    def size(self, epoch: int) -> int:
        """Return the image size for training in ``epoch`` (from 1)."""
        return next(size for first, size in reversed(self.entries) if epoch >= first)

    @property
    def final(self) -> int:
        """Return the last size. Evaluation always takes place at it, so that its numbers compare over epochs."""
        return self.entries[-1][1]
