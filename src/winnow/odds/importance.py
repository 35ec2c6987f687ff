"""Which parameter of a search mattered, with uncertainty, and in words where that can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

LEAST_PER_TERM = 2.0
"""Trials for each coefficient that is fitted."""
SURE = 0.93
_RESAMPLES, _DEGREE = 200, 3

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
    """The parameters, the most important first; ``named``: the first one if it is surely that, else None. ``chance``: in how many of
    the resampled searches it is first."""

    parameters: tuple[Importance, ...]
    named: str | None
    chance: float

    @property
    def words(self) -> str:
        """Return what can be said, as a sentence."""
        first, *others = self.parameters
        if self.named is not None:
            return f"{first.name} mattered most: it explains {first.share:.0%} of the variance ({first.low:.0%} to {first.high:.0%})"
        alike = [other.name for other in others if other.high >= first.low][:2]
        return (
            f"which parameter mattered most can't be told: {' and '.join([first.name, *alike])} explain about as much"
        )


def importances(columns: Mapping[str, Column], values: Sequence[float], seed: int = 0) -> Importances | None:
    """Return what each of ``columns`` (numbers on the scale that was searched, or texts) explains of ``values``, over resampled trials;
    None for too few trials to tell, or where all values are equal.

    Each parameter gets a curve of its own (polynomials of degree 3, or a level per choice), fitted together by least squares; what
    they do only together is not theirs. What noise alone would explain is taken off.
    """
    y = np.asarray(values, dtype=float)
    features = {name: matrix for name, column in columns.items() if (matrix := _features(column)).shape[1]}
    num_terms = 1 + sum(matrix.shape[1] for matrix in features.values())
    if not features or len(y) < LEAST_PER_TERM * num_terms or np.ptp(y) == 0:
        return None
    rng = np.random.default_rng(seed)
    found = _shares(features, y)
    drawn = []
    while len(drawn) < _RESAMPLES:
        rows = rng.integers(len(y), size=len(y))
        if np.ptp(y[rows]) > 0:
            drawn.append(_shares({name: matrix[rows] for name, matrix in features.items()}, y[rows]))
    samples = np.array(drawn)
    names = list(features)
    order = np.argsort(-found, kind="stable")
    low, high = np.quantile(samples, [0.1, 0.9], axis=0)
    listed = tuple(Importance(names[k], *(float(part[k]) for part in (found, low, high))) for k in order)
    if len(names) == 1:
        return Importances(listed, names[0] if low[0] > 0.1 else None, 1.0)
    others = np.delete(samples, order[0], axis=1).max(axis=1)
    chance = float((samples[:, order[0]] > others).mean())
    return Importances(listed, names[order[0]] if chance >= SURE else None, chance)


def _features(column: Column) -> NDArray[np.float64]:
    """Return orthonormal functions of a parameter [trials, functions], none for one that never varies."""
    if any(isinstance(value, str) for value in column):
        texts = np.array([str(value) for value in column])
        levels = np.array([texts == level for level in np.unique(texts)], dtype=float).T
        return (levels - levels.mean(axis=0))[:, 1:] if levels.shape[1] > 1 else np.zeros((len(texts), 0))
    numbers = np.asarray(column, dtype=float)
    span = float(np.ptp(numbers))
    if span == 0:
        return np.zeros((len(numbers), 0))
    degree = min(_DEGREE, len(np.unique(numbers)) - 1)
    matrix = legendre.legvander(2 * (numbers - numbers.min()) / span - 1, degree)[:, 1:]
    return matrix - matrix.mean(axis=0)


def _shares(features: Mapping[str, NDArray[np.float64]], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the variance of ``y`` that each parameter's curve explains, less what noise would, at least 0."""
    matrix = np.concatenate([np.ones((len(y), 1)), *features.values()], axis=1)
    gram = matrix.T @ matrix + 1e-6 * len(y) * np.eye(matrix.shape[1])
    inverse = np.linalg.inv(gram)
    coefficients = inverse @ (matrix.T @ y)
    left = y - matrix @ coefficients
    noise = float(left @ left) / max(1, len(y) - matrix.shape[1])
    shares, start = [], 1
    for columns in features.values():
        part = slice(start, start + columns.shape[1])
        curve = columns @ coefficients[part]
        luck = noise * float(np.trace(columns @ inverse[part, part] @ columns.T)) / len(y)
        shares.append(max(0.0, float(np.var(curve)) - luck))
        start += columns.shape[1]
    return np.array(shares) / float(np.var(y))
