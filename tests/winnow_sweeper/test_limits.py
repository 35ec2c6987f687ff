"""When a sweep stops itself: by failures in a row, and by what the whole study has cost."""

import json

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hydra_plugins.winnow_sweeper._limits import Limits, SweepFailedError
from winnow.sweep.outcome import COST, OUTCOME, Outcome, interrupted_by_place

FAILED = Outcome("failed", reason="a bug", run_folder="runs/3")


@pytest.fixture
def study():
    return optuna.create_study()


def limits_of(study, max_failures=None, max_cost=None):
    return Limits(max_failures, 1.0, 2, None, max_cost, lambda: study.get_trials(deepcopy=False))


def num_failures_until_it_stops(limits, outcome=FAILED, most=30):
    for number in range(1, most + 1):
        limits.count(outcome)
        try:
            limits.require_health(outcome)
        except SweepFailedError:
            return number
    return None


def test_three_failures_in_a_row_end_a_study_in_which_nothing_has_completed(study):
    study.add_trial(create_trial(state=TrialState.PRUNED))
    limits = limits_of(study)
    for _ in range(3):
        limits.count(FAILED)
    with pytest.raises(
        SweepFailedError, match=r"3 trials in a row have failed .*max_failures=3.*: a bug; its log is in runs/3"
    ):
        limits.require_health(FAILED)
    assert num_failures_until_it_stops(limits_of(study)) == 3


def test_after_the_first_success_of_whichever_process_ten_do(study):
    limits = limits_of(study)
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=1.0))
    assert num_failures_until_it_stops(limits) == 10


def test_a_success_in_between_begins_the_count_anew(study):
    limits = limits_of(study)
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=1.0))
    for _ in range(9):
        limits.count(FAILED)
    limits.count(Outcome("completed", values=(1.0,)))
    assert num_failures_until_it_stops(limits) == 10


@pytest.mark.parametrize("has_completed", [True, False])
def test_a_limit_that_is_given_holds_before_and_after(study, has_completed):
    if has_completed:
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=1.0))
    assert num_failures_until_it_stops(limits_of(study, max_failures=5)) == 5


def test_trouble_of_the_place_is_no_failure(study):
    assert num_failures_until_it_stops(limits_of(study), interrupted_by_place("full")) is None


def test_cost_is_that_of_all_trials_whoever_runs_them_and_of_those_that_run(study):
    limits = limits_of(study, max_cost={"images": 250, "seconds": 1000.0})
    ended = Outcome("completed", cost={"images": 200, "seconds": 5.0}).to_json()
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=1.0, user_attrs={OUTCOME: ended}))
    running = study.ask()
    running.set_user_attr(COST, json.dumps({"images": 49.0, "seconds": 1.0}))
    assert limits.spent() is None
    running.set_user_attr(COST, json.dumps({"images": 50.0, "seconds": 1.2}))
    assert limits.spent() == "max_cost.images=250 is spent (250)"
