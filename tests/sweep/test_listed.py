"""Listed trials are known by what they hold: an edited list runs the new one, and nothing twice."""

import optuna
import pytest
from optuna.trial import TrialState

from winnow.errors import ConfigError
from winnow.sweep.listed import EXPLICIT, enqueue_listed, num_beyond, unlisted_in
from winnow.sweep.outcome import OVERRIDES
from winnow.sweep.table import rows_of

SPACE = {"lr": optuna.distributions.FloatDistribution(0, 1)}
A, B, C = (({"lr": value}, ("training.seed=1",)) for value in (0.1, 0.2, 0.3))


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


def run_all(study):
    """Run what waits, and return the learning rates in their order."""
    ran = []
    while any(trial.state == TrialState.WAITING for trial in study.trials):
        trial = study.ask(SPACE)
        ran.append(trial.params["lr"])
        study.tell(trial, trial.params["lr"])
    return ran


def test_each_listed_trial_runs_once_over_all_starts(study):
    for _ in range(2):
        enqueue_listed(study, [A, B, A])
    assert run_all(study) == [0.1, 0.2, 0.1]
    enqueue_listed(study, [A, B, A])
    assert run_all(study) == []
    assert unlisted_in(study) == []


@pytest.mark.parametrize(("edited", "run", "unlisted"), [
    ([B, A], [], []), ([A, C], [0.3], [1]), ([C, A, B], [0.3], []), ([B], [], [0]), ([A, B, B], [0.2], []), ([], [], [0, 1]),
])  # fmt: skip
def test_an_edited_list_runs_what_is_new_and_marks_what_is_gone(study, edited, run, unlisted):
    enqueue_listed(study, [A, B])
    run_all(study)
    enqueue_listed(study, edited)
    assert run_all(study) == run
    assert unlisted_in(study) == unlisted
    reasons = [row.outcome.reason for row in rows_of(study.trials, unlisted=unlisted_in(study))]
    assert [number for number, reason in enumerate(reasons) if reason == "no longer listed"] == unlisted
    enqueue_listed(study, [A, B, *edited])
    assert not set(unlisted_in(study)) & {0, 1}  # back in the list


def test_another_seed_is_another_trial(study):
    enqueue_listed(study, [A])
    enqueue_listed(study, [A, (A[0], ("training.seed=2",))])
    assert [trial.user_attrs[OVERRIDES] for trial in study.trials] == [["training.seed=1"], ["training.seed=2"]]


def test_what_never_began_and_is_no_longer_listed_never_does(study):
    enqueue_listed(study, [A, B])
    enqueue_listed(study, [B])
    assert run_all(study) == [0.2]
    first, second = rows_of(study.trials, unlisted=unlisted_in(study))
    assert (first.status, first.outcome.reason) == ("pruned", "no longer listed; never started")
    assert (second.status, second.outcome.reason) == ("completed", None)


def test_what_was_taken_off_the_list_before_it_began_runs_when_it_is_listed_again(study):
    for listed in ([A, B], [B], [A, B], [A, B]):
        enqueue_listed(study, listed)
    assert sorted(run_all(study)) == [0.1, 0.2]
    assert num_beyond(study) == 1


def test_damaged_overrides_are_refused_by_study_and_trial(study):
    study.enqueue_trial(A[0], user_attrs={EXPLICIT: 0, OVERRIDES: [{}]})
    with pytest.raises(ConfigError, match=f"study '{study.study_name}': trial 0 holds damaged winnow:overrides"):
        enqueue_listed(study, [A])


def test_a_study_that_knew_listed_trials_by_their_place_goes_on(study):
    study.enqueue_trial(A[0], user_attrs={EXPLICIT: 0, OVERRIDES: list(A[1])})
    enqueue_listed(study, [C, A])
    assert run_all(study) == [0.1, 0.3]
