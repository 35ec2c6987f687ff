"""When a sweep stops a trial early: Optuna pruners of our own, each a few rules that read as sentences.

A step is an epoch. Only COMPLETE trials are compared with. A value that is not finite is a gap, never a number to compare.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from winnow.sweep.forecast import NUM_COEFFICIENTS, Curve, Forecast, forecast_final

logger = logging.getLogger(__name__)

FORECAST, FORECAST_SPREAD, FORECAST_BAR = "winnow:forecast", "winnow:forecast_spread", "winnow:forecast_bar"
"""Attributes of an Optuna trial: the numbers of its latest forecast."""


@dataclass(frozen=True)
class Decision:
    """What a pruner decided at ``epoch``: ``reason`` in one line for people, ``attributes`` for the trial."""

    prune: bool
    epoch: int
    reason: str
    attributes: dict[str, float] = field(default_factory=dict)


class MedianThresholdPruner(BasePruner):
    """Stops a trial below the median of the finished ones, but only while it is below ``threshold``; and one below ``floor``
    whatever the median.

    A trial is judged by its best value so far; "below" means worse, in a study that minimises above. For the median each
    finished trial counts with the value it reported last at or before this epoch. ``threshold`` None: the median acts on all.
    ``floor`` acts from ``floor_from_epoch`` on, in every epoch, start-up trials and warm-up included; None: never. The median
    acts once ``n_startup_trials`` have finished, after ``n_warmup_steps`` epochs (None: a fifth of ``max_epochs``, at least
    2), every ``interval_steps``, where ``n_min_trials`` finished trials have a value. ``last`` is what the last call of
    ``prune`` decided. Raises ValueError that names a wrong argument first.
    """

    def __init__(
        self,
        max_epochs: int,
        threshold: float | None,
        floor: float | None,
        floor_from_epoch: int | None,
        n_startup_trials: int,
        n_warmup_steps: int | None,
        n_min_trials: int,
        interval_steps: int,
    ) -> None:
        _check_at_least(1, max_epochs=max_epochs, n_min_trials=n_min_trials, interval_steps=interval_steps)
        _check_at_least(0, n_startup_trials=n_startup_trials, n_warmup_steps=n_warmup_steps)
        _check_at_least(1, floor_from_epoch=floor_from_epoch)
        _check_finite(threshold=threshold, floor=floor)
        if (floor is None) != (floor_from_epoch is None):
            given, lacking = ("floor_from_epoch", "floor") if floor is None else ("floor", "floor_from_epoch")
            raise ValueError(f"{lacking}=None goes with {given}=None only; set both or neither")
        self.threshold, self.floor, self.floor_from_epoch = threshold, floor, floor_from_epoch
        self.n_startup_trials, self.n_min_trials = n_startup_trials, n_min_trials
        self.n_warmup_steps = default_warmup(max_epochs) if n_warmup_steps is None else n_warmup_steps
        self.interval_steps = interval_steps
        self.last: Decision | None = None

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        self.last = None
        epoch = trial.last_step
        if epoch is None:
            return False
        sign = sign_of(study)
        best = max((value for value in curve_of(trial, sign).values() if math.isfinite(value)), default=-math.inf)
        reason = self._below_floor(best, epoch, sign) or self._below_median(study, trial, best, epoch, sign)
        if reason is None:
            return False
        self.last = Decision(True, epoch, reason)
        logger.info("trial %d pruned at epoch %d: %s", trial.number, epoch, reason)
        return True

    def _below_floor(self, best: float, epoch: int, sign: int) -> str | None:
        if self.floor is None or self.floor_from_epoch is None or epoch < self.floor_from_epoch:
            return None
        return f"{sign * best:.4g} {_worse(sign)} floor {self.floor:.4g}" if best < sign * self.floor else None

    def _below_median(self, study: Study, trial: FrozenTrial, best: float, epoch: int, sign: int) -> str | None:
        if self.threshold is not None and best >= sign * self.threshold:
            return None
        if not is_due(epoch, trial.intermediate_values, self.n_warmup_steps, self.interval_steps):
            return None
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [value for other in finished if (value := _latest(curve_of(other, sign), epoch)) is not None]
        if len(finished) < self.n_startup_trials or len(values) < self.n_min_trials:
            return None
        median = statistics.median(values)
        return f"{sign * best:.4g} {_worse(sign)} median {sign * median:.4g}" if best < median else None


class ForecastPruner(BasePruner):
    """Stops a trial whose forecast final value, even with ``z`` standard deviations in its favour, is worse than the best
    finished one.

    The first ``n_startup_trials`` run to the end, and nothing is pruned while fewer have finished. The forecast is made after
    ``n_warmup_steps`` epochs (None: a fifth of ``max_epochs``, at least 2) and every ``interval_steps`` (None: a tenth, at
    least 1); in the last epoch there is nothing left to save. ``last`` is what the last call of ``prune`` decided, with the
    forecast's numbers in its attributes; None where it made no forecast. Raises ValueError that names a wrong argument first.
    """

    def __init__(
        self,
        max_epochs: int,
        z: float,
        n_startup_trials: int,
        n_warmup_steps: int | None,
        interval_steps: int | None,
    ) -> None:
        _check_at_least(1, max_epochs=max_epochs, n_warmup_steps=n_warmup_steps, interval_steps=interval_steps)
        # On fewer curves the regression leaves no degree of freedom.
        _check_at_least(NUM_COEFFICIENTS + 1, n_startup_trials=n_startup_trials)
        _check_at_least(0, z=z)
        _check_finite(z=z)
        self.max_epochs, self.z, self.n_startup_trials = max_epochs, z, n_startup_trials
        self.n_warmup_steps = default_warmup(max_epochs) if n_warmup_steps is None else n_warmup_steps
        self.interval_steps = max(1, max_epochs // 10) if interval_steps is None else interval_steps
        self.last: Decision | None = None

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        self.last = None
        epoch = trial.last_step
        if trial.number < self.n_startup_trials or epoch is None or epoch >= self.max_epochs:
            return False
        if not is_due(epoch, trial.intermediate_values, self.n_warmup_steps, self.interval_steps):
            return False
        sign = sign_of(study)
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        curves = [curve_of(other, sign) for other in finished]
        forecast = forecast_final(curve_of(trial, sign), curves, epoch, self.n_startup_trials)
        if forecast is None:
            return False
        self.last = self._decide(forecast, epoch, sign)
        words = "pruned" if self.last.prune else "goes on"
        logger.log(
            logging.INFO if self.last.prune else logging.DEBUG,
            "trial %d %s at epoch %d: %s",
            trial.number,
            words,
            epoch,
            self.last.reason,
        )
        return self.last.prune

    def _decide(self, forecast: Forecast, epoch: int, sign: int) -> Decision:
        optimistic = forecast.final + self.z * forecast.spread
        prune = optimistic < forecast.bar
        final, bar = sign * forecast.final, sign * forecast.bar
        relation = _worse(sign) if prune else "reaches"
        reason = (
            f"forecast {final:.4g} ± {forecast.spread:.2g}, at best {sign * optimistic:.4g} {relation} "
            f"{bar:.4g}, the best of the finished"
        )
        return Decision(prune, epoch, reason, {FORECAST: final, FORECAST_SPREAD: forecast.spread, FORECAST_BAR: bar})


def is_eliminated(final_value: float | None, floor: float | None, maximize: bool) -> bool:
    """Return whether a completed trial ended below the floor: ``eliminated`` in the results table. NaN is below any
    floor; without a floor, or without a value, nothing is.
    """
    if floor is None or final_value is None:
        return False
    return not (final_value >= floor if maximize else final_value <= floor)


def is_due(epoch: int, reported: Collection[int], n_warmup_steps: int, interval_steps: int) -> bool:
    """Return whether ``epoch`` is the first reported one since the last point of the grid ``n_warmup_steps`` +
    k·``interval_steps``; so a check that falls into a gap is made up for at the next report.
    """
    if epoch < n_warmup_steps:
        return False
    point = n_warmup_steps + (epoch - n_warmup_steps) // interval_steps * interval_steps
    return not any(point <= other < epoch for other in reported)


def default_warmup(max_epochs: int) -> int:
    return max(2, max_epochs // 5)


def sign_of(study: Study) -> int:
    """Return the factor by which to multiply values so that larger is better."""
    return 1 if study.direction == StudyDirection.MAXIMIZE else -1


def curve_of(trial: FrozenTrial, sign: int) -> Curve:
    values: Mapping[int, float] = trial.intermediate_values
    return values if sign > 0 else {epoch: -value for epoch, value in values.items()}


def _latest(curve: Curve, epoch: int) -> float | None:
    epochs = [e for e, value in curve.items() if e <= epoch and math.isfinite(value)]
    return curve[max(epochs)] if epochs else None


def _worse(sign: int) -> str:
    return "<" if sign > 0 else ">"


def _check_at_least(least: int, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{name}={value!r} must be at least {least}")


def _check_finite(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name}={value!r} must be a finite number")
