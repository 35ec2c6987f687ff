"""Learning rate and image size as pure functions of the step and the epoch, so that a resumed run needs no history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from winnow.engine.settings import SchedulerSettings


@dataclass(frozen=True)
class LrSchedule:
    """What every group's learning rate is multiplied by, over ``total_steps`` optimizer steps."""

    settings: SchedulerSettings
    total_steps: int
    steps_per_epoch: int

    def factor(self, step: int) -> float:
        """The multiplier for the update after ``step`` finished ones.

        Warm-up rises linearly from ``warmup_factor`` and is never longer than a third of the run; the cosine then falls to
        ``min_factor`` at the last step (Loshchilov & Hutter 2017, without restarts).
        """
        settings = self.settings
        warmup = min(settings.warmup_steps, self.total_steps // 3)
        ramp = 1.0 if step >= warmup else settings.warmup_factor + (1 - settings.warmup_factor) * step / warmup
        if settings.name == "multistep":
            passed = sum(step >= epoch * self.steps_per_epoch for epoch in settings.milestones)
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
        """For training in ``epoch`` (from 1)."""
        return next(size for first, size in reversed(self.entries) if epoch >= first)

    @property
    def final(self) -> int:
        """Evaluation always takes place at this size, so that its numbers compare over epochs."""
        return self.entries[-1][1]
