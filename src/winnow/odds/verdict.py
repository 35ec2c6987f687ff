"""Is one group of runs better than another, or is that luck? Student's t with a spread that further repeats help to know."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import nct, norm, t

BETTER, WORSE, CANT_TELL = "better", "worse", "can't tell"
LEVEL, POWER = 0.05, 0.8
IDLE, SLAB = 0.9, 2.0
"""What is believed of a change before it is tried: in nine of ten cases it does nothing, else it moves the objective by 2σ."""
MOST_REPEATS = 200
"""More repeats than that are not asked for: the answer is then that no affordable number would do."""


@dataclass(frozen=True)
class Spread:
    """The standard deviation ``sigma`` of the objective between seeds of one configuration, known to ``degrees`` of freedom
    (repeats less one, over all configurations); ``source`` says whose repeats they were."""

    sigma: float
    degrees: int
    source: str


@dataclass(frozen=True)
class Verdict:
    """What is said of B beside A: ``difference`` is B's mean minus A's, turned so that larger is better, with its 95 % interval.

    ``probability`` is that B is truly better, all differences having been equally likely before. ``spread`` is what the interval
    rests on, None where nothing is known of it; ``image_sigma`` what the choice of images adds to it. ``repeats``: runs
    a side with which a true difference of this size is found in 80 % of cases; None where no affordable number would do, and
    where none is needed. ``expected``: B's value less its luck; ``reason`` says in words why nothing can be told.
    """

    word: str
    difference: float
    low: float | None = None
    high: float | None = None
    probability: float | None = None
    spread: Spread | None = None
    image_sigma: float = 0.0
    repeats: int | None = None
    expected: float | None = None
    reason: str | None = None


def pooled(groups: Sequence[Sequence[float]], known: Spread | None = None) -> Spread | None:
    """Return the spread within ``groups`` of repeats, together with what was ``known``; None where neither says anything."""
    squares = sum(float(np.square(np.subtract(group, np.mean(group))).sum()) for group in groups if len(group) > 1)
    degrees = sum(len(group) - 1 for group in groups if len(group) > 1)
    sources = ["these runs"] if degrees else []
    if known is not None:
        squares, degrees = squares + known.sigma**2 * known.degrees, degrees + known.degrees
        sources.append(known.source)
    return Spread(math.sqrt(squares / degrees), degrees, " and ".join(sources)) if degrees else None


def judge(
    first: Sequence[float], second: Sequence[float], known: Spread | None = None, maximize: bool = True,
    image_variance: float = 0.0, within_images: float | None = None,
) -> Verdict:  # fmt: skip
    """Return whether the runs ``second`` are better than ``first``.

    ``image_variance``: that of the difference of both means over resampled validation images; ``within_images``: what of it the
    seeds explain already, None where that is not known. Equal configurations are called different in 5 % of cases.
    """
    sign = 1.0 if maximize else -1.0
    difference = sign * (float(np.mean(second)) - float(np.mean(first)))
    spread = pooled([first, second], known)
    if spread is None:
        return Verdict(
            CANT_TELL,
            difference,
            repeats=repeats_without_spread(),
            reason="nothing is known of the spread between seeds",
        )
    share = 1 / len(first) + 1 / len(second)
    seeds = spread.sigma**2 * share
    images = max(0.0, image_variance - (seeds if within_images is None else within_images))
    error = math.sqrt(seeds + images)
    if error == 0:
        return _without_error(difference, spread)
    degrees = _degrees(seeds, spread.degrees, images)
    half = float(t.ppf(1 - LEVEL / 2, degrees)) * error
    word = CANT_TELL if abs(difference) <= half else (BETTER if difference > 0 else WORSE)
    return Verdict(
        word, difference, difference - half, difference + half, float(t.cdf(difference / error, degrees)), spread,
        math.sqrt(images), None if word != CANT_TELL else repeats_needed(difference, spread.sigma, images),
        expected=expected_value(first, second, difference, error, spread.sigma, sign),
        reason="the spread is larger than the difference" if word == CANT_TELL else None,
    )  # fmt: skip


def repeats_needed(difference: float, sigma: float, images: float = 0.0) -> int | None:
    """Return how many runs a side find a true ``difference`` in 80 % of cases, where seeds spread by ``sigma`` and the choice of
    images adds the variance ``images``; None for more than 200."""
    if not _are_enough(MOST_REPEATS, difference, sigma, images):
        return None
    enough = range(2, MOST_REPEATS + 1)
    return enough[bisect.bisect_left(enough, True, key=lambda number: _are_enough(number, difference, sigma, images))]


def _are_enough(number: int, difference: float, sigma: float, images: float) -> bool:
    error = math.sqrt(2 * sigma**2 / number + images)
    return error == 0 or power(abs(difference) / error, 2 * (number - 1)) >= POWER


def repeats_without_spread() -> int:
    """Return how many runs a side it takes where nothing is known: those that find a difference of three σ in 80 % of cases."""
    return repeats_needed(3.0, 1.0) or MOST_REPEATS


def power(ratio: float, degrees: float) -> float:
    """Return how often a true difference of ``ratio`` standard errors is found."""
    limit = float(t.ppf(1 - LEVEL / 2, degrees))
    found = 1 - nct.cdf(limit, degrees, ratio) + nct.cdf(-limit, degrees, ratio)
    return float(found) if math.isfinite(found) else 1.0  # SciPy gives no number far out


def expected_value(
    first: Sequence[float], second: Sequence[float], difference: float, error: float, sigma: float, sign: float
) -> float:
    """Return what a new run of the second is to be expected to give: the middle of both groups, weighted by their sizes, and from
    there the difference less its luck."""
    middle = (float(np.sum(first)) + float(np.sum(second))) / (len(first) + len(second))
    part = len(first) / (len(first) + len(second))
    return middle + sign * part * without_luck(difference, error, sigma)


def without_luck(difference: float, error: float, sigma: float) -> float:
    """Return the true difference to expect behind one that was measured with the standard error ``error``, where most changes do
    nothing (``IDLE``), and the true differences of the others spread by 2σ."""
    wide = math.hypot(error, SLAB * sigma)
    real, idle = (
        log_part + norm.logpdf(difference, scale=scale)
        for log_part, scale in ((math.log(1 - IDLE), wide), (math.log(IDLE), error))
    )
    return float(difference * (1 - (error / wide) ** 2) / (1 + math.exp(min(idle - real, 700.0))))


def contrast_variance(pairs: Mapping[tuple[int, int], float], weights: Sequence[float]) -> float:
    """Return the variance of Σ wᵢXᵢ, the ``weights`` summing to nothing, from those of the differences Xᵢ − Xⱼ (i < j)."""
    return -sum(weights[i] * weights[j] * variance for (i, j), variance in pairs.items())


def _without_error(difference: float, spread: Spread) -> Verdict:
    if difference == 0:
        return Verdict(CANT_TELL, 0.0, 0.0, 0.0, 0.5, spread, reason="all values are equal")
    word = BETTER if difference > 0 else WORSE
    return Verdict(word, difference, difference, difference, 1.0 if difference > 0 else 0.0, spread)


def _degrees(seeds: float, degrees: int, images: float) -> float:
    """Return the degrees of freedom of the sum of an estimated variance and one that is as good as known (Satterthwaite)."""
    return degrees * ((seeds + images) / seeds) ** 2 if seeds > 0 else math.inf
