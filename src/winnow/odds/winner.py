"""What a run is truly worth that was picked because it looked best: its value less its luck, seen among all that were tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import norm

LEVEL = 0.8
LEAST = 4
"""Values with fewer others beside them are not lowered."""


@dataclass(frozen=True)
class Expected:
    """What a new run of a configuration is expected to give, and the interval that holds it in 80 % of cases."""

    value: float
    low: float
    high: float


def expected_values(values: Sequence[float], sigma: float, maximize: bool = True) -> list[Expected]:
    """Return for each of ``values``, measured once each with the noise ``sigma``, what a new run is expected to give.

    Empirical Bayes: how the true values spread is estimated from all that were measured, and each is drawn to their middle by
    the share of its distance that is probably luck. The best third decides: a search tries much that fails, which says nothing
    of the winner's rivals, so of the others only their number counts (a censored normal distribution).
    """
    measured = np.asarray(values, dtype=float) * (1.0 if maximize else -1.0)
    middle, true_spread = _prior(measured, sigma) if len(measured) >= LEAST else (0.0, math.inf)
    kept = 1.0 if math.isinf(true_spread) or sigma == 0 else true_spread**2 / (true_spread**2 + sigma**2)
    half = float(norm.ppf((1 + LEVEL) / 2)) * sigma * math.sqrt(1 + kept + _doubt(kept, len(measured)))
    means = (middle + kept * (measured - middle)) * (1.0 if maximize else -1.0)
    return [Expected(float(mean), float(mean) - half, float(mean) + half) for mean in means]


def _prior(measured: NDArray[np.float64], sigma: float) -> tuple[float, float]:
    """Return mean and standard deviation of the true values, as the best third of the ``measured`` ones has them: the most
    likely normal distribution, with noise on top, where all others are known to be below that third and no more."""
    limit = float(np.quantile(measured, 2 / 3))
    better, num_worse = measured[measured >= limit], int((measured < limit).sum())
    scale = max(float(np.std(better)), sigma, 1e-12)

    def loss(point: NDArray[np.float64]) -> float:
        middle, total = limit + scale * point[0], math.hypot(sigma, scale * math.exp(point[1]))
        seen = norm.logpdf(better, middle, total).sum()
        return -float(seen + num_worse * norm.logcdf(limit, middle, total))

    found = minimize(
        loss, np.array([0.0, 0.0]), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4, "maxiter": 300}
    )
    return limit + scale * float(found.x[0]), scale * math.exp(float(found.x[1]))


def _doubt(kept: float, number: int) -> float:
    """Return what not knowing the share that is kept adds to the variance of the winner, in σ²: it lies about √(2 log n) from the
    middle, and the share is known to about √(4/n) of what is taken off."""
    return (1 - kept) * 2 * math.log(max(number, 2)) * 4 / number
