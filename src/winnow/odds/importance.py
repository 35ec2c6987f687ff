"""Which parameter of a search mattered, with uncertainty, and in words where that can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

LEAST_PER_TERM = 2.0
"""Trials for each coefficient that is fitted."""
SURE = 0.95
_DRAWS, _DEGREE = 2000, 2

Column = Sequence[float] | Sequence[str]


@dataclass(frozen=True)
class Importance:
    """The ``share`` of the variance of the values that a parameter explains by itself, with its 80 % interval."""

    name: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importances:
    """The parameters, the most important first; ``named``: the first one if it is surely that, else None. ``chance``: how
    probable it is that it is first."""

    parameters: tuple[Importance, ...]
    named: str | None
    chance: float

    @property
    def words(self) -> str:
        """Return what can be said, as a sentence."""
        first, *others = self.parameters
        if self.named is not None:
            interval = f"{first.low:.0%} to {first.high:.0%}"
            return f"{first.name} mattered most: it explains {first.share:.0%} of the variance ({interval})"
        alike = [other.name for other in others if other.high >= first.low][:2]
        return (
            f"which parameter mattered most can't be told: {' and '.join([first.name, *alike])} explain about as much"
        )


def importances(columns: Mapping[str, Column], values: Sequence[float], seed: int = 0) -> Importances | None:
    """Return what each of ``columns`` (numbers on the scale that was searched, or texts) explains of ``values`` over the searched
    range; None for too few trials to tell, or where all values are equal.

    Each parameter gets a curve of its own (polynomials of degree 2, or a level per choice), fitted together by least squares;
    what they do only together is not theirs. The curves are drawn anew as trials and seeds leave them open, and what noise
    alone would explain is taken off.
    """
    y = np.asarray(values, dtype=float)
    parts = {name: part for name, column in columns.items() if (part := _functions(column))[0].shape[1]}
    num_terms = 1 + sum(matrix.shape[1] for matrix, _ in parts.values())
    if not parts or len(y) < LEAST_PER_TERM * num_terms or np.ptp(y) == 0:
        return None
    found, samples = _shares(list(parts.values()), y, np.random.default_rng(seed))
    names = list(parts)
    order = np.argsort(-found, kind="stable")
    low, high = np.quantile(samples, [0.1, 0.9], axis=0).clip(0)
    listed = tuple(Importance(names[k], *(float(part[k]) for part in (found, low, high))) for k in order)
    if len(names) == 1:
        return Importances(listed, names[0] if low[0] > 0.1 else None, 1.0)
    others = np.delete(samples, order[0], axis=1).max(axis=1)
    chance = float((samples[:, order[0]] > others).mean())
    return Importances(listed, names[order[0]] if chance >= SURE else None, chance)


def _functions(column: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return functions of a parameter [trials, functions], none for one that never varies, and their covariance over the
    searched range [functions, functions]."""
    if any(isinstance(value, str) for value in column):
        texts = np.array([str(value) for value in column])
        levels = np.array([texts == level for level in np.unique(texts)[1:]], dtype=float).reshape(-1, len(texts)).T
        return levels, np.atleast_2d(np.cov(levels.T, bias=True)) if levels.shape[1] else np.zeros((0, 0))
    numbers = np.asarray(column, dtype=float)
    span = float(np.ptp(numbers))
    degree = min(_DEGREE, len(np.unique(numbers)) - 1) if span > 0 else 0
    place = 2 * (numbers - numbers.min()) / span - 1 if span > 0 else numbers
    matrix = legendre.legvander(place, degree)[:, 1:] * np.sqrt(2 * np.arange(1, degree + 1) + 1)
    return matrix, np.eye(degree)


def _shares(
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], y: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of the variance of ``y`` that each parameter's curve explains [parameters], at least 0, and as many
    shares of curves drawn anew [draws, parameters]."""
    matrix = np.concatenate([np.ones((len(y), 1)), *(functions for functions, _ in parts)], axis=1)
    inverse = np.linalg.inv(matrix.T @ matrix + 1e-6 * len(y) * np.eye(matrix.shape[1]))
    coefficients = inverse @ (matrix.T @ y)
    left, free = y - matrix @ coefficients, max(1, len(y) - matrix.shape[1])
    noise = float(left @ left) / free
    scale = np.sqrt(noise * free / rng.chisquare(free, (_DRAWS, 1)))
    drawn = coefficients + scale * rng.normal(size=(_DRAWS, len(coefficients))) @ np.linalg.cholesky(inverse).T
    shares, samples, start = [], [], 1
    for functions, covariance in parts:
        own = slice(start, start + functions.shape[1])
        luck = noise * float(np.trace(covariance @ inverse[own, own]))
        shares.append(max(0.0, float(coefficients[own] @ covariance @ coefficients[own]) - luck))
        samples.append(np.einsum("di,ij,dj->d", drawn[:, own], covariance, drawn[:, own]) - 2 * luck)
        start += functions.shape[1]
    return np.array(shares) / float(np.var(y)), np.array(samples).T / float(np.var(y))
