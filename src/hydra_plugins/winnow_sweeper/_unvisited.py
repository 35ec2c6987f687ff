"""A sampler for finite spaces, around one that may propose the same point again: no point is run twice."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.winnow_sweeper._points import Point, Points, value_at
from winnow.sweep.listed import given_values
from winnow.sweep.outcome import overrides_of

PROPOSALS = 10
"""How often the sampler is asked before another free point is taken."""


class UnvisitedSampler(BaseSampler):
    """Proposes points that no trial of the study has: the first free one of ``order`` (a grid's), else what ``sampler`` proposes
    where it finds one in ``PROPOSALS`` tries, else one by lot. What a listed trial gives stays.

    Whoever asks holds a lock of the study, so that two processes can't take the same point, and sees to it that one is left:
    where none is, ``sampler`` has its way.
    """

    def __init__(
        self, points: Points, sampler: BaseSampler, order: Sequence[Point] = (), seed: int | None = None
    ) -> None:
        self._points = points
        self.sampler = sampler
        self._order = order
        self._rng = random.Random(seed)

    def reseed_rng(self) -> None:
        self._rng.seed()
        self.sampler.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._points.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        # Of all trials: where a pruner has brackets, ``study`` shows those of one alone.
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        taken = self._points.taken((other for other in trials if other.number != trial.number), overrides_of(trial))
        given = given_values(trial)
        free = self._points.first_free(self._order, taken, given)
        if free is not None:
            return self._points.values_at(free)
        for _ in range(PROPOSALS):
            proposed = self._proposed(study, trial, given)
            if self._points.point_of(proposed) not in taken:
                return proposed
        free = self._points.free_point(taken, given, self._rng)
        return proposed if free is None else self._points.values_at(free)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def _proposed(self, study: optuna.Study, trial: FrozenTrial, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the sampler proposes for all parameters that are not ``given``, asked as ``optuna.Trial`` asks it."""
        space = self.sampler.infer_relative_search_space(study, trial)
        found = {**self.sampler.sample_relative(study, trial, space), **given}
        asked = copy.copy(trial)
        for name, distribution in self._points.distributions.items():
            if name not in found:
                found[name] = (
                    value_at(distribution, 0)
                    if distribution.single()
                    else self.sampler.sample_independent(study, asked, name, distribution)
                )
            asked.params = {**asked.params, name: found[name]}
            asked.distributions = {**asked.distributions, name: distribution}
        return {name: found[name] for name in self._points.distributions}
