"""What a learning curve will end at, forecast from the curves of finished trials; pure functions that know no Optuna.

A curve is a mapping epoch → value, larger is better. A value that is not finite is no value: it leaves a gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = Mapping[int, float]
Array = NDArray[np.float64]

WINDOW = 3
"""Epochs that a value of a curve is averaged over."""
PENALTY = 1.0
"""Weight of the ridge on standardised features; the intercept is free."""
NUM_COEFFICIENTS = 4


@dataclass(frozen=True)
class Forecast:
    """``final`` is what the curve should end at, learned from ``num_finished`` curves; ``spread`` the standard deviation of
    such forecasts; ``bar`` the best final value of all finished curves."""

    final: float
    spread: float
    bar: float
    num_finished: int


def forecast_final(curve: Curve, finished: Sequence[Curve], epoch: int, min_finished: int) -> Forecast | None:
    """Forecast at ``epoch`` what ``curve`` will end at.

    It is learned from the ``finished`` curves that reached ``epoch``; the bar is the best of all of them. None while
    fewer than ``min_finished`` (more than ``NUM_COEFFICIENTS``) curves can teach, or where ``curve`` has no value yet.
    """
    curves = [other for other in finished if last_epoch(other) >= 0]
    teachers = [other for other in curves if last_epoch(other) >= epoch and has_value(other, epoch)]
    if len(teachers) < min_finished or not has_value(curve, epoch):
        return None
    features = np.array([features_at(other, epoch) for other in teachers])
    ends = np.array([final_value(other) for other in teachers])
    gains, residuals = ridge(features, ends - features[:, 0], np.array([features_at(curve, epoch)]))
    return Forecast(
        final=float(features_at(curve, epoch)[0] + gains[0]),
        # Few curves say little about how far off a forecast can be: divided by the degrees of freedom, they say so.
        spread=float(np.sqrt(np.sum(residuals**2) / (len(teachers) - NUM_COEFFICIENTS))),
        bar=float(max(final_value(other) for other in curves)),
        num_finished=len(teachers),
    )


def features_at(curve: Curve, epoch: int) -> tuple[float, float, float]:
    """Return the value now and the gains over the last and the middle third of the way."""
    now, later, earlier = (smooth_value(curve, part * epoch // 3) for part in (3, 2, 1))
    return now, now - later, later - earlier


def smooth_value(curve: Curve, epoch: int) -> float:
    """Return the mean over the ``WINDOW`` epochs that end with ``epoch``; in a gap the latest value before it, before
    the first value the first.
    """
    window = [curve[e] for e in range(epoch - WINDOW + 1, epoch + 1) if e in curve and math.isfinite(curve[e])]
    if window:
        return sum(window) / len(window)
    epochs = [e for e, value in curve.items() if math.isfinite(value)]
    before = [e for e in epochs if e <= epoch]
    return curve[max(before) if before else min(epochs)]


def final_value(curve: Curve) -> float:
    return smooth_value(curve, last_epoch(curve))


def last_epoch(curve: Curve) -> int:
    """Return the last epoch with a value; -1 where there is none."""
    return next((e for e in sorted(curve, reverse=True) if math.isfinite(curve[e])), -1)


def has_value(curve: Curve, epoch: int) -> bool:
    """Return whether anything was measured up to ``epoch``."""
    return any(e <= epoch and math.isfinite(value) for e, value in curve.items())


def ridge(features: Array, targets: Array, asked: Array) -> tuple[Array, Array]:
    """Return predictions for the rows of ``asked``, and the leave-one-out residual of each of ``targets``.

    ``features`` [n, k] and ``targets`` [n] are fitted by ridge regression with a free intercept on features divided by
    their standard deviation; a residual is target − prediction of the fit to all other rows, with the divisors kept.
    """
    centre, scale = features.mean(axis=0), features.std(axis=0)
    # A column without spread says nothing; rounding must not blow it up.
    divisor = np.where(scale > 1e-9 * (1.0 + np.abs(centre)), scale, np.inf)
    design = _with_intercept((features - centre) / divisor)
    penalty = PENALTY * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    solved = np.linalg.solve(design.T @ design + penalty, design.T)
    coefficients = solved @ targets
    leverage = np.einsum("ij,ji->i", design, solved)
    residuals = (targets - design @ coefficients) / (1.0 - leverage)
    return _with_intercept((asked - centre) / divisor) @ coefficients, residuals


def _with_intercept(rows: Array) -> Array:
    return np.column_stack([np.ones(len(rows)), rows])
