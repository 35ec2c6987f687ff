"""The points of a space that has an end of them: how many there are, which are taken, and one that is not."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from winnow.sweep.listed import content_of, given_values, was_withdrawn
from winnow.sweep.outcome import overrides_of

Point = tuple[int, ...]
"""A place on the axis of each parameter, in the order of the space."""


@dataclass(frozen=True)
class Points:
    """Every combination of the values of ``distributions``: ``num`` points. Without parameters there is one, the config as
    it is, but where trials are listed: then these are all."""

    distributions: Mapping[str, BaseDistribution]
    lengths: tuple[int, ...]
    num: int

    @classmethod
    def of(cls, distributions: Mapping[str, BaseDistribution], is_listed: bool = False) -> Self | None:
        """Return the points, None where a parameter has no end of values; ``is_listed`` says that there is a list of trials."""
        lengths = [_length(distribution) for distribution in distributions.values()]
        known = tuple(length for length in lengths if length is not None)
        if len(known) < len(lengths):
            return None
        return cls(dict(distributions), known, 0 if is_listed and not known else math.prod(known))

    def point_of(self, params: Mapping[str, Any]) -> Point | None:
        """Return the point of ``params``, values as a study holds them; None where one is missing or not of the space."""
        places = self._places(params)
        known = tuple(place for place in places if place is not None)
        return known if len(known) == len(places) else None

    def values_at(self, point: Point) -> dict[str, Any]:
        return {
            name: value_at(distribution, place)
            for (name, distribution), place in zip(self.distributions.items(), point, strict=True)
        }

    def taken(self, trials: Iterable[FrozenTrial], overrides: Sequence[str] = ()) -> set[Point]:
        """Return the points of those ``trials`` that have exactly these ``overrides`` of their own: ended in whatever way,
        running, or waiting with all their values given. What was withdrawn before it began takes none."""
        own = content_of({}, overrides)
        points = (
            self.point_of(given_values(trial))
            for trial in trials
            if content_of({}, overrides_of(trial)) == own and not was_withdrawn(trial)
        )
        return {point for point in points if point is not None}

    def num_free(self, taken: Set[Point], given: Mapping[str, Any] | None = None) -> int:
        """Count the points with the ``given`` values that are not ``taken``. Values that are not of the space (its bounds were
        changed) are a point of their own."""
        if not given:
            return max(0, self.num - len(taken))
        axes = self._axes(given)
        return 1 if axes is None else math.prod(map(len, axes)) - len(_inside(taken, axes))

    def num_left(self, trials: Sequence[FrozenTrial]) -> int:
        """Count the trials that are still to come on top of these: free points, without those that waiting ones will take."""
        to_choose = [
            trial
            for trial in trials
            if trial.state == TrialState.WAITING
            and not overrides_of(trial)
            and self.point_of(given_values(trial)) is None
        ]
        return max(0, self.num_free(self.taken(trials)) - len(to_choose))

    def num_done(self, trials: Iterable[FrozenTrial]) -> int:
        return len(self.taken(trial for trial in trials if trial.state.is_finished()))

    def free_point(self, taken: Set[Point], given: Mapping[str, Any], rng: random.Random) -> Point | None:
        """Return one of the points with the ``given`` values that are not ``taken``, each as likely as any other; None where
        there is none."""
        axes = self._axes(given)
        if axes is None or self.num_free(taken, given) < 1:
            return None
        inside = _inside(taken, axes)
        number = rng.randrange(math.prod(map(len, axes)) - len(inside))
        for other in sorted(_number(point, axes) for point in inside):
            number += other <= number
        return _point(number, axes)

    def first_free(self, order: Iterable[Point], taken: Set[Point], given: Mapping[str, Any]) -> Point | None:
        """Return the first of ``order`` that has the ``given`` values and is not ``taken``; None where there is none."""
        axes = self._axes(given)
        if axes is None:
            return None
        return next((point for point in order if point not in taken and _is_inside(point, axes)), None)

    def shuffled(self, seed: int | None) -> list[Point]:
        """Return all points in the order of Optuna's GridSampler, so that a study that it began goes on as it would have."""
        names = list(self.distributions)
        by_name = sorted(range(len(names)), key=lambda place: names[place])
        order = list(itertools.product(*(range(self.lengths[place]) for place in by_name)))
        np.random.RandomState(seed or 0).shuffle(order)
        return [tuple(point[by_name.index(place)] for place in range(len(names))) for point in order]

    def _places(self, params: Mapping[str, Any]) -> list[int | None]:
        return [
            _place(distribution, length, params[name]) if name in params else None
            for (name, distribution), length in zip(self.distributions.items(), self.lengths, strict=True)
        ]

    def _axes(self, given: Mapping[str, Any]) -> list[Sequence[int]] | None:
        """Return the places of each parameter: the one of a given value, else all. None if a given value has no place."""
        axes: list[Sequence[int]] = []
        for name, length, place in zip(self.distributions, self.lengths, self._places(given), strict=True):
            if name in given and place is None:
                return None
            axes.append(range(length) if place is None else (place,))
        return axes


def _inside(taken: Set[Point], axes: Sequence[Sequence[int]]) -> list[Point]:
    return [point for point in taken if _is_inside(point, axes)]


def _is_inside(point: Point, axes: Sequence[Sequence[int]]) -> bool:
    return all(place in axis for place, axis in zip(point, axes, strict=True))


def _number(point: Point, axes: Sequence[Sequence[int]]) -> int:
    number = 0
    for place, axis in zip(point, axes, strict=True):
        number = number * len(axis) + axis.index(place)
    return number


def _point(number: int, axes: Sequence[Sequence[int]]) -> Point:
    places = []
    for axis in reversed(axes):
        number, index = divmod(number, len(axis))
        places.append(axis[index])
    return tuple(reversed(places))


def _length(distribution: BaseDistribution) -> int | None:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.single():
        return 1
    if distribution.step is None:
        return None
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _place(distribution: BaseDistribution, length: int, value: Any) -> int | None:
    if isinstance(distribution, CategoricalDistribution):
        # By text: Optuna takes true for 1, and a NaN for no choice.
        texts = [repr(choice) for choice in distribution.choices]
        return texts.index(repr(value)) if repr(value) in texts else None
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    steps = (value - distribution.low) / (distribution.step or 1)
    place = round(steps)
    return place if 0 <= place < length and abs(steps - place) < 1e-8 else None


def value_at(distribution: BaseDistribution, place: int) -> Any:
    """Return the value at ``place`` of a parameter's axis, as a study holds it."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[place]
    if isinstance(distribution, IntDistribution):
        return distribution.low + place * distribution.step
    assert isinstance(distribution, FloatDistribution)
    step = 0.0 if distribution.step is None else distribution.step
    return float(Decimal(str(distribution.low)) + place * Decimal(str(step)))
