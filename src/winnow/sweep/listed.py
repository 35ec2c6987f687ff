"""Listed trials of a study, known by their content: an edited list adds trials and never renames those that are there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from winnow.config.moved import with_moved_target
from winnow.reading import naming
from winnow.sweep.outcome import OUTCOME, OVERRIDES, Outcome, overrides_of

EXPLICIT = "winnow:explicit"
"""Attribute of a trial that stands in a list, or once stood there."""
UNLISTED = "winnow:unlisted"
"""Attribute of a study: numbers of the trials that no longer stand in its list."""
NO_LONGER_LISTED = "no longer listed"


def content_of(params: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return what tells one listed trial from another: the searched values that it gives, as the study writes them, and its own
    overrides, its seed among them. The order of keys says nothing."""
    return json.dumps([sorted(params.items()), sorted(map(with_moved_target, overrides))], default=str)


def listed_content(trial: FrozenTrial) -> str | None:
    """Return the content of a stored trial that was listed, None for one that the sampler proposed."""
    if EXPLICIT not in trial.user_attrs:
        return None
    params = trial.system_attrs.get("fixed_params", {})
    return content_of(params if isinstance(params, dict) else {}, overrides_of(trial))


def given_values(trial: FrozenTrial) -> dict[str, Any]:
    """Return the values of searched keys that a stored trial has or, while it waits, is to have."""
    given = trial.system_attrs.get("fixed_params", {})
    return {**(given if isinstance(given, dict) else {}), **trial.params}


def was_withdrawn(trial: FrozenTrial) -> bool:
    """Return whether the trial was ended before it began."""
    return trial.state.is_finished() and trial.datetime_start is None


def enqueue_listed(study: optuna.Study, listed: Sequence[tuple[Mapping[str, Any], Sequence[str]]]) -> None:
    """Put trials (searched values, own overrides) that the study does not have yet before all others. One that the study has and
    that is no longer ``listed`` stays as it is, and is marked so; if it never began, it never will, unless it is listed
    again."""
    wanted = Counter(content_of(params, overrides) for params, overrides in listed)
    contents = frozenset(wanted)
    unlisted = []
    for trial in study.get_trials(deepcopy=False):
        with naming(f"study {study.study_name!r}"):
            content = listed_content(trial)
        if content is None or (was_withdrawn(trial) and content in contents):
            continue
        if wanted[content] > 0:
            wanted[content] -= 1
            continue
        unlisted.append(trial.number)
        if trial.state == TrialState.WAITING:
            withdraw(study, trial, "never started")
    if unlisted != unlisted_in(study):
        study.set_user_attr(UNLISTED, unlisted)
    for place, (params, overrides) in enumerate(listed):
        content = content_of(params, overrides)
        if wanted[content] > 0:
            wanted[content] -= 1
            study.enqueue_trial(dict(params), user_attrs={EXPLICIT: place, OVERRIDES: list(overrides)})


def unlisted_in(study: optuna.Study) -> list[int]:
    """Return the numbers of the trials that no longer stand in the study's list."""
    found = study.user_attrs.get(UNLISTED, [])
    return [number for number in found if isinstance(number, int)] if isinstance(found, list) else []


def num_beyond(study: optuna.Study) -> int:
    """Count the trials that come on top of those a study is to have: no longer listed, or ended before they began."""
    withdrawn = {trial.number for trial in study.get_trials(deepcopy=False) if was_withdrawn(trial)}
    return len(withdrawn.union(unlisted_in(study)))


def withdraw(study: optuna.Study, trial: FrozenTrial, reason: str) -> None:
    """End a trial that waits, for ``reason``, before it begins."""
    outcome = Outcome("pruned", reason=reason)
    study._storage.set_trial_user_attr(trial._trial_id, OUTCOME, outcome.to_json())
    study._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)
