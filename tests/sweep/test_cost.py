"""The cost of a study: what ended, what was left and what runs, each once."""

import json

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from winnow.sweep.cost import StudyCost, cost_of
from winnow.sweep.outcome import COST, OUTCOME, Outcome
from winnow.sweep.storage import create_study_once, open_storage
from winnow.sweep.trial import StoredTrial, StudyRef


def trial(state=TrialState.RUNNING, **attributes):
    value = 1.0 if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, user_attrs=attributes)


def completed(images, status="completed"):
    return Outcome(status, cost={"images": images}).to_json()


def told(images):
    return json.dumps({"images": images})


@pytest.mark.parametrize(("attributes", "images"), [
    ({}, None),
    ({OUTCOME: completed(100)}, 100),
    ({COST: told(40)}, 40),
    ({OUTCOME: completed(100), COST: told(90)}, 100),
    ({OUTCOME: Outcome("failed", reason="died").to_json(), COST: told(40)}, 40),
    ({f"{OUTCOME}:0": completed(100), f"{COST}:0": told(80), f"{COST}:1": told(30)}, 130),
    ({f"{OUTCOME}:0": completed(100), f"{OUTCOME}:1": completed(70), OUTCOME: completed(170)}, 170),
    ({f"{OUTCOME}:0": completed(100), f"{COST}:1": told(30), OUTCOME: completed(100, "failed")}, 130),
    ({COST: "[1"}, None),
    ({COST: '{"images": NaN}'}, None),
])  # fmt: skip
def test_each_run_counts_once_as_its_outcome_says_or_as_far_as_it_has_told(attributes, images):
    assert cost_of(trial(**attributes)).get("images") == images


def test_a_study_is_the_sum_over_ended_and_running_trials(tmp_path):
    study = create_study_once(open_storage(str(tmp_path / "study.journal")), "s", ["maximize"])
    study.add_trial(trial(TrialState.COMPLETE, **{OUTCOME: completed(100)}))
    study.add_trial(trial(TrialState.FAIL, **{COST: told(7)}))
    running = study.ask()
    cost = StudyCost()
    assert cost.of(study.get_trials(deepcopy=False)) == {"images": 107}
    running.set_user_attr(COST, told(20))
    assert cost.of(study.get_trials(deepcopy=False)) == {"images": 127}
    running.set_user_attr(COST, told(50))
    assert cost.of(study.get_trials(deepcopy=False)) == {"images": 157}


@pytest.mark.parametrize("seed", [None, 5])
def test_a_run_tells_its_cost_where_the_study_has_a_limit(tmp_path, seed):
    study = create_study_once(open_storage(str(tmp_path / "study.journal")), "s", ["maximize"])
    study.ask()
    seeds = None if seed is None else (4, seed)
    for counts_cost in (False, True):
        ref = StudyRef("s", str(tmp_path / "study.journal"), str(tmp_path), None, seeds=seeds, counts_cost=counts_cost)
        StoredTrial(ref, 0, seed).spend({"images": 30, "seconds": 1.5})
        expected = {"images": 30, "seconds": 1.5} if counts_cost else {}
        assert cost_of(optuna.load_study(study_name="s", storage=study._storage).trials[0]) == expected
