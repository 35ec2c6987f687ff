"""How truly short runs rank configurations: Spearman's correlation to expect between a search and full training, with an
interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr

LEAST_TRIALS = 8
_WIDENED = 1.7
"""By how much the interval of a correlation of independent pairs is widened: the past of a curve is not its future."""


@dataclass(frozen=True)
class RankForecast:
    """The rank correlation to expect, and an interval that is to hold the true one in 80 % of cases; of so many ``trials``."""

    value: float
    low: float
    high: float
    trials: int


def rank_forecast(curves: Sequence[Sequence[float]], sigma: float | None, ratio: float) -> RankForecast | None:
    """Return how well the last values of ``curves`` (one per completed trial, a value per epoch, as many for all) rank what
    training ``ratio`` times as long will give; None with fewer than 8 trials, or where all are equal.

    The true correlation is taken to lie between two: that the curves go on to cross as they came (the ranking after 1/ratio of
    the epochs against that at their end), and that they cross no more. Luck (``sigma``, None if unknown) lowers both, for a full
    training has luck of its own; the value is the middle of the two.
    """
    values = np.asarray(curves, dtype=float)
    if values.ndim != 2 or len(values) < LEAST_TRIALS or np.ptp(values[:, -1]) == 0:
        return None
    num_epochs = values.shape[1]
    earlier = values[:, max(1, math.floor(num_epochs / max(ratio, 1.0))) - 1]
    held = float(spearmanr(earlier, values[:, -1]).statistic) if np.ptp(earlier) > 0 else 0.0
    most = 1.0 if sigma is None else shared_ranking(values[:, -1], sigma)
    least = min(held * most, most)
    ends = np.arctanh(np.clip([least, most], -0.995, 0.995))
    half = float(norm.ppf(0.9)) * _WIDENED * 1.06 / math.sqrt(len(values) - 3)
    low, high = np.tanh(ends + np.array([-half, half]))
    return RankForecast(float(np.tanh(ends.mean())), float(low), float(high), len(values))


def shared_ranking(values: NDArray[np.float64], sigma: float) -> float:
    """Return the rank correlation to expect between ``values`` and those of the same configurations with other seeds: each
    carries noise of ``sigma``, so the true values spread by less than the measured ones do."""
    rng = np.random.default_rng(0)
    spread = float(np.std(values, ddof=1))
    part = max(0.0, 1 - (sigma / spread) ** 2) if spread > 0 else 0.0
    true = values.mean() + math.sqrt(part) * (values - values.mean())
    draws = [
        spearmanr(true + rng.normal(0, sigma, len(true)), true + rng.normal(0, sigma, len(true))).statistic
        for _ in range(40)
    ]
    return float(np.mean(draws))
