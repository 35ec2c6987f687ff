"""The truth table of `median_threshold`, and what it does with gaps, NaN and resumed trials."""

import logging
import math

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from studies import asked, messages, pruned_at, study_of

from winnow.sweep.pruners import Decision, MedianThresholdPruner, default_warmup, is_due, is_eliminated

NAN = math.nan
DEFAULTS = {
    "max_epochs": 10, "threshold": None, "floor": None, "floor_from_epoch": None,
    "n_startup_trials": 2, "n_warmup_steps": 0, "n_min_trials": 1, "interval_steps": 1,
}  # fmt: skip
# At each epoch the median of these is 0.5.
FINISHED = [[0.4] * 10, [0.5] * 10, [0.6] * 10]


def pruner(**changes):
    return MedianThresholdPruner(**{**DEFAULTS, **changes})


def mirrored(changes):
    """Return the same settings for a study of the negated values."""
    return {
        name: -value if name in ("threshold", "floor") and value is not None else value
        for name, value in changes.items()
    }


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(("settings", "values", "prunes"), [
    # threshold × median
    ({}, [0.3], True),
    ({}, [0.5], False),                                                         # at the median
    ({}, [0.55], False),
    ({"threshold": 0.45}, [0.3], True),                                         # below both
    ({"threshold": 0.7}, [0.55], False),                                        # below the threshold, above the median
    ({"threshold": 0.2}, [0.3], False),                                         # above the threshold, below the median
    ({"threshold": 0.3}, [0.3], False),                                         # at the threshold
    ({"threshold": 0.35}, [0.4, 0.1], False),                                   # was above it once
    ({}, [0.6, 0.1], False),                                                    # its best so far counts
    # warm-up
    ({"n_warmup_steps": 4}, [0.3] * 3, False),
    ({"n_warmup_steps": 4}, [0.3] * 4, True),
    ({"n_warmup_steps": None}, [0.3], False),                                   # a fifth of the epochs, at least 2
    ({"n_warmup_steps": None}, [0.3, 0.3], True),
    # start-up and number of trials to compare with
    ({"n_startup_trials": 3}, [0.3], True),
    ({"n_startup_trials": 4}, [0.3], False),
    ({"n_min_trials": 3}, [0.3], True),
    ({"n_min_trials": 4}, [0.3], False),
    # interval
    ({"n_warmup_steps": 1, "interval_steps": 3}, [0.3], True),
    ({"n_warmup_steps": 1, "interval_steps": 3}, [0.3] * 3, False),
    ({"n_warmup_steps": 1, "interval_steps": 3}, [0.3] * 4, True),
    ({"interval_steps": 5}, {4: 0.3, 7: 0.3}, True),                            # the check at 5 is made up for
    ({"interval_steps": 5}, {5: 0.3, 7: 0.3}, False),
    # floor
    ({"floor": 0.1, "floor_from_epoch": 2, "n_startup_trials": 99}, [0.05], False),
    ({"floor": 0.1, "floor_from_epoch": 2, "n_startup_trials": 99}, [0.05] * 2, True),
    ({"floor": 0.1, "floor_from_epoch": 2, "n_startup_trials": 99}, [0.1] * 2, False),
    ({"floor": 0.1, "floor_from_epoch": 2, "n_startup_trials": 99}, [0.2, 0.05], False),
    ({"floor": 0.1, "floor_from_epoch": 2, "n_warmup_steps": 9, "interval_steps": 9}, [0.05] * 3, True),
    ({"floor": 0.1, "floor_from_epoch": 2, "threshold": 0.0}, [0.05] * 2, True),
    ({"floor": 0.7, "floor_from_epoch": 1}, [0.65], True),                      # above the median
    # gaps and NaN
    ({}, [NAN, NAN], True),                                                     # nothing is below any median
    ({}, [0.6, NAN], False),
    ({}, [0.3, NAN], True),
    ({"floor": 0.1, "floor_from_epoch": 2, "n_startup_trials": 99}, [NAN, NAN], True),
    ({}, {}, False),
])  # fmt: skip
def test_truth_table(direction, settings, values, prunes):
    finished = FINISHED
    if direction == "minimize":
        settings = mirrored(settings)
        values = {e: -v for e, v in values.items()} if isinstance(values, dict) else [-value for value in values]
        finished = [[-value for value in other] for other in FINISHED]
    assert asked(study_of(pruner(**settings), finished, direction), values) is prunes


def test_a_finished_trial_counts_with_the_last_value_it_had_by_then():
    every_fifth = [{5: 0.2, 10: 0.6}] * 2
    stopped_early = [{1: 0.1, 2: 0.5}] * 2
    assert not asked(study_of(pruner(), every_fifth), {7: 0.3})
    assert asked(study_of(pruner(), every_fifth), {10: 0.3})
    assert not asked(study_of(pruner(), every_fifth), {4: 0.0})
    assert asked(study_of(pruner(), stopped_early), {7: 0.3})


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_only_completed_trials_count(state):
    assert not asked(study_of(pruner(n_startup_trials=1), FINISHED, state=state), [0.1])


def test_a_nan_of_a_finished_trial_is_no_value():
    study = study_of(pruner(n_min_trials=3), [[NAN, 0.5], [0.5, 0.5], [0.5, 0.5]])
    assert not asked(study, [0.1])
    assert asked(study, [0.1, 0.1])


def test_without_threshold_it_decides_as_optuna_does_where_all_report_in_every_epoch():
    rng = np.random.default_rng(0)
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        finished = (sign * rng.uniform(size=(9, 10)) + sign * 0.2 * np.arange(10)).tolist()
        settings = {"n_startup_trials": 3, "n_warmup_steps": 2, "n_min_trials": 2, "interval_steps": 2}
        ours = study_of(pruner(**settings), finished, direction)
        theirs = study_of(optuna.pruners.MedianPruner(**settings), finished, direction)
        curves = (sign * rng.uniform(size=(60, 10)) + sign * 0.2 * np.arange(10)).tolist()
        decisions = [pruned_at(ours, values) for values in curves]
        assert decisions == [pruned_at(theirs, values) for values in curves]
        assert {None, 2, 4} < set(decisions)


def test_a_resumed_trial_is_judged_by_all_it_ever_reported():
    study = study_of(pruner(), FINISHED)
    trial = study.ask()
    trial.report(0.55, 1)
    trial.report(0.2, 2)
    again = optuna.trial.Trial(study, trial._trial_id)
    with pytest.warns(UserWarning, match="already reported"):
        again.report(0.1, 2)
    again.report(0.1, 3)
    assert not again.should_prune()


def test_it_says_why(caplog):
    caplog.set_level(logging.INFO, "winnow")
    chosen = pruner(floor=0.1, floor_from_epoch=2)
    study = study_of(chosen, FINISHED)
    assert asked(study, [0.35, 0.2])
    assert chosen.last == Decision(True, 2, "0.35 < median 0.5")
    assert asked(study, [0.01, 0.02])
    assert chosen.last == Decision(True, 2, "0.02 < floor 0.1")
    assert messages(caplog) == [
        "trial 3 pruned at epoch 2: 0.35 < median 0.5",
        "trial 4 pruned at epoch 2: 0.02 < floor 0.1",
    ]
    assert not asked(study, [0.6])
    assert chosen.last is None


def test_in_a_study_that_minimises_it_says_it_the_other_way_round():
    chosen = pruner()
    assert asked(study_of(chosen, [[1.0], [2.0], [3.0]], "minimize"), [4.0])
    assert chosen.last.reason == "4 > median 2"


@pytest.mark.parametrize(("value", "floor", "maximize", "eliminated"), [
    (0.05, 0.1, True, True), (0.1, 0.1, True, False), (0.2, 0.1, True, False),
    (5.0, 3.0, False, True), (3.0, 3.0, False, False), (1.0, 3.0, False, False),
    (0.05, None, True, False), (None, 0.1, True, False), (NAN, 0.1, True, True), (NAN, 3.0, False, True),
])  # fmt: skip
def test_a_trial_that_ended_below_the_floor_is_eliminated(value, floor, maximize, eliminated):
    assert is_eliminated(value, floor, maximize) is eliminated


@pytest.mark.parametrize(("max_epochs", "warmup"), [(1, 2), (12, 2), (15, 3), (50, 10)])
def test_warm_up_is_a_fifth_of_the_epochs_and_at_least_two(max_epochs, warmup):
    assert default_warmup(max_epochs) == warmup


@pytest.mark.parametrize(("reported", "epochs"), [
    (range(1, 13), [3, 7, 11]),
    (range(2, 13, 2), [4, 8, 12]),
    ([1, 2, 5, 6, 12], [5, 12]),
])  # fmt: skip
def test_a_check_in_a_gap_is_made_up_for_at_the_next_report(reported, epochs):
    assert [e for e in reported if is_due(e, [r for r in reported if r <= e], 3, 4)] == epochs


@pytest.mark.parametrize(("changes", "message"), [
    ({"max_epochs": 0}, "max_epochs=0 must be at least 1"),
    ({"n_min_trials": 0}, "n_min_trials=0 must be at least 1"),
    ({"interval_steps": 0}, "interval_steps=0 must be at least 1"),
    ({"n_startup_trials": -1}, "n_startup_trials=-1 must be at least 0"),
    ({"n_warmup_steps": -1}, "n_warmup_steps=-1 must be at least 0"),
    ({"floor": 0.1, "floor_from_epoch": 0}, "floor_from_epoch=0 must be at least 1"),
    ({"floor": NAN, "floor_from_epoch": 1}, "floor=nan must be a finite number"),
    ({"threshold": NAN}, "threshold=nan must be a finite number"),
    ({"floor": 0.1}, "floor_from_epoch=None goes with floor=None only; set both or neither"),
    ({"floor_from_epoch": 3}, "floor=None goes with floor_from_epoch=None only; set both or neither"),
])  # fmt: skip
def test_a_wrong_argument_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        pruner(**changes)
