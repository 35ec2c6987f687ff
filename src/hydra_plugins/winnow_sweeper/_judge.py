"""Judging a trial: the result of its runs' outcomes, and how the study is told."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from winnow.sweep.outcome import OUTCOME, Outcome, outcome_of
from winnow.sweep.trial import outcome_key

logger = logging.getLogger(__name__)

STD = "winnow:std"
"""Attribute of a trial that was run with several seeds: the standard deviation of its values."""

# A diverged trial is told as pruned: a failed one would be invisible to the sampler, which should learn to stay away.
_STATES = {
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "out_of_memory": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
_WORST_FIRST = ("failed", "out_of_memory", "diverged", "pruned", "completed")


class Judge:
    """Tells ``study``; with ``seeds`` a configuration is judged by the mean over its runs."""

    def __init__(self, study: optuna.Study, seeds: Sequence[int] | None) -> None:
        self._study = study
        self._seeds = seeds

    def store(self, trial: FrozenTrial, outcome: Outcome) -> bool:
        """Keep an outcome that the job itself could not store: it died, or lost sight of the storage. False where it did."""
        key, text = outcome_key(outcome.seed), outcome.to_json()
        if trial.user_attrs.get(key) == text:
            return False
        self._study._storage.set_trial_user_attr(trial._trial_id, key, text)
        return True

    def settle(self, trial: FrozenTrial) -> Outcome | None:
        """Tell what the outcomes stored on ``trial`` come to, and give it; None where runs are missing yet."""
        outcome = self._combine_seeds(trial)
        if outcome is None:
            return None
        state = _STATES[outcome.status]
        values = list(outcome.values) if state == TrialState.COMPLETE else None
        try:
            self._study.tell(trial.number, values, state=state, skip_if_finished=True)
        except RuntimeError as error:
            # BruteForceSampler calls Study.stop at the end of its space, which is for study.optimize alone; the value is stored.
            if "Study.stop" not in str(error):
                raise
        return outcome

    def _combine_seeds(self, trial: FrozenTrial) -> Outcome | None:
        if self._seeds is None:
            return outcome_of(trial)
        known = (outcome_of(trial, outcome_key(seed)) for seed in self._seeds)
        found = [outcome for outcome in known if outcome is not None]
        if not found:
            return None
        worst = min(found, key=lambda outcome: _WORST_FIRST.index(outcome.status))
        if worst.status == "completed" and len(found) < len(self._seeds):
            return None
        whole = _mean(found) if worst.status == "completed" else replace(worst, **_sums(found))
        storage = self._study._storage
        if worst.status == "completed" and len(found) > 1:
            deviation = [
                statistics.stdev(values) for values in zip(*(outcome.values for outcome in found), strict=True)
            ]
            storage.set_trial_user_attr(trial._trial_id, STD, deviation)
        storage.set_trial_user_attr(trial._trial_id, OUTCOME, whole.to_json())
        return whole


def _mean(found: Sequence[Outcome]) -> Outcome:
    values = tuple(statistics.fmean(column) for column in zip(*(outcome.values for outcome in found), strict=True))
    return replace(
        found[0], values=values, seed=None, run_folder=found[0].run_folder and found[0].run_folder.rpartition("/")[0],
        final_objective=_mean_of_known(outcome.final_objective for outcome in found),
        final_map=_mean_of_known(outcome.final_map for outcome in found),
        final_loss=_mean_of_known(outcome.final_loss for outcome in found), **_sums(found),
    )  # fmt: skip


def _mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _sums(found: Sequence[Outcome]) -> dict[str, Any]:
    names = {name for outcome in found for name in outcome.cost}
    return {
        "epochs": sum(outcome.epochs for outcome in found),
        "seconds": sum(outcome.seconds for outcome in found),
        "cost": {name: sum(outcome.cost.get(name, 0.0) for outcome in found) for name in sorted(names)},
    }
