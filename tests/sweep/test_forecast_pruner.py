"""When the forecast pruner asks, what it prunes, and what it never prunes."""

import logging
import math

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from studies import asked, messages, pruned_at, study_of

from winnow.sweep.forecast import forecast_final
from winnow.sweep.pruners import FORECAST, FORECAST_BAR, FORECAST_SPREAD, ForecastPruner

EPOCHS = 30
DEFAULTS = {"max_epochs": EPOCHS, "z": 1.0, "n_startup_trials": 6, "n_warmup_steps": None, "interval_steps": None}


def pruner(**changes):
    return ForecastPruner(**{**DEFAULTS, **changes})


def saturating(level, time=5.0, noise=0.0, seed=0):
    t = np.arange(1, EPOCHS + 1)
    return (level * (1 - np.exp(-t / time)) + noise * np.random.default_rng(seed).standard_normal(EPOCHS)).tolist()


def cosine(level, noise=0.0, seed=0):
    t = np.arange(1, EPOCHS + 1)
    shape = (1 - np.exp(-t / 4)) * (1 - 0.4 * (1 + np.cos(np.pi * t / EPOCHS)) / 2)
    return (level * shape + noise * np.random.default_rng(seed).standard_normal(EPOCHS)).tolist()


def family(make, count=8):
    return [make(0.3 + 0.04 * n, noise=0.004, seed=n) for n in range(count)]


@pytest.mark.parametrize("num_finished", range(6))
def test_nothing_is_pruned_while_fewer_than_six_have_finished(num_finished):
    study = study_of(pruner(), family(saturating)[-num_finished:] if num_finished else [])
    for _ in range(10):  # trials that never end, so that only their number grows
        assert not asked(study, saturating(0.01)[:20])


def test_pruned_and_failed_trials_are_not_finished_ones():
    for state in (TrialState.PRUNED, TrialState.FAIL):
        assert pruned_at(study_of(pruner(), family(saturating), state=state), saturating(0.01)) is None


def test_the_first_six_trials_run_to_the_end_however_many_finish_before_them():
    study = optuna.create_study(direction="maximize", pruner=pruner())
    first = [study.ask() for _ in range(6)]
    for level in range(8):
        assert pruned_at(study, saturating(0.5 + 0.01 * level)) is None
    for trial in first:
        for epoch, value in enumerate(saturating(0.01)[:-1], 1):
            trial.report(value, epoch)
            assert not trial.should_prune()


@pytest.mark.parametrize("make", [saturating, cosine])
def test_a_hopeless_curve_is_pruned_at_the_first_look(make):
    assert pruned_at(study_of(pruner(), family(make)), make(0.1)) == 6


@pytest.mark.parametrize("make", [saturating, cosine])
@pytest.mark.parametrize("seed", range(10))
def test_the_coming_best_is_never_pruned(make, seed):
    study = study_of(pruner(), family(make))
    assert pruned_at(study, make(0.66, noise=0.004, seed=100 + seed)) is None


def test_a_slow_starter_that_will_win_is_kept_where_the_median_stops_it():
    finished = [saturating(0.3 + 0.03 * n, 2) for n in range(8)] + [saturating(0.3 + 0.035 * n, 12) for n in range(8)]
    winner = saturating(0.6, 12)
    assert winner[-1] > max(values[-1] for values in finished)
    assert pruned_at(study_of(pruner(), finished), winner) is None
    assert pruned_at(study_of(optuna.pruners.MedianPruner(n_warmup_steps=6), finished), winner) == 6


def test_a_larger_z_prunes_less():
    rng = np.random.default_rng(1)
    finished = [saturating(level, noise=0.03, seed=n) for n, level in enumerate(rng.uniform(0.3, 0.6, 12))]
    trials = [saturating(level, noise=0.03, seed=50 + n) for n, level in enumerate(rng.uniform(0.3, 0.6, 12))]

    def spent_with(z):
        # A study each, so that all are held against the same finished trials.
        return sum(pruned_at(study_of(pruner(z=z), finished), values) or EPOCHS for values in trials)

    spent = [spent_with(z) for z in (0.0, 1.0, 2.0, 100.0)]
    assert spent == sorted(spent)
    assert spent[0] < spent[2] < spent[3] == 12 * EPOCHS


@pytest.mark.parametrize(("max_epochs", "changes", "epochs"), [
    (30, {}, [6, 9, 12, 15, 18, 21, 24, 27]),               # not in the last epoch
    (12, {}, list(range(2, 12))),
    (5, {}, [2, 3, 4]),
    (30, {"n_warmup_steps": 10, "interval_steps": 7}, [10, 17, 24]),
])  # fmt: skip
def test_it_looks_from_the_warm_up_on_at_every_interval(max_epochs, changes, epochs):
    chosen = pruner(max_epochs=max_epochs, z=100.0, **changes)
    study = study_of(chosen, [values[:max_epochs] for values in family(saturating)])
    trial, looks = study.ask(), []
    for epoch in range(1, max_epochs + 1):
        trial.report(saturating(0.66)[epoch - 1], epoch)
        assert not trial.should_prune()
        looks += [chosen.last.epoch] if chosen.last else []
    assert looks == epochs


def test_trials_evaluated_every_fifth_epoch_are_judged_too():
    sparse = [{e: values[e - 1] for e in range(5, 31, 5)} for values in family(saturating)]
    assert pruned_at(study_of(pruner(), sparse), dict.fromkeys(range(5, 31, 5), 0.05)) == 10
    assert pruned_at(study_of(pruner(), sparse), dict.fromkeys(range(5, 31, 5), 0.9)) is None


def test_nan_reports_are_gaps():
    values = saturating(0.66)
    values[5] = values[8] = math.nan
    assert pruned_at(study_of(pruner(), family(saturating)), values) is None
    assert pruned_at(study_of(pruner(), family(saturating)), [0.05] * 5 + [math.nan] * 25) == 6
    assert pruned_at(study_of(pruner(), family(saturating)), [math.nan] * EPOCHS) is None


def test_the_log_line_and_the_decision_say_forecast_spread_and_bar(caplog):
    caplog.set_level(logging.INFO, "winnow")
    chosen = pruner()
    finished = family(saturating)
    assert asked(study_of(chosen, finished), saturating(0.1)[:6])
    by_epoch = [dict(enumerate(values, 1)) for values in finished]
    made = forecast_final(dict(enumerate(saturating(0.1)[:6], 1)), by_epoch, 6, 6)
    assert chosen.last.attributes == {FORECAST: made.final, FORECAST_SPREAD: made.spread, FORECAST_BAR: made.bar}
    words = f"forecast {made.final:.4g} ± {made.spread:.2g}, at best {made.final + made.spread:.4g} < {made.bar:.4g}"
    assert messages(caplog) == [f"trial 8 pruned at epoch 6: {words}, the best of the finished"]


def test_a_forecast_that_keeps_the_trial_is_told_but_not_logged(caplog):
    caplog.set_level(logging.INFO, "winnow")
    chosen = pruner()
    assert not asked(study_of(chosen, family(saturating)), saturating(0.66)[:6])
    assert chosen.last.attributes[FORECAST] == pytest.approx(0.66, abs=0.05)
    assert messages(caplog) == []


levels = st.lists(st.tuples(st.floats(0.05, 0.9), st.floats(1, 20)), min_size=7, max_size=10)


@settings(max_examples=40, deadline=None)
@given(levels, st.floats(-2, 2), st.sampled_from([0.0, 1.0, 2.0]))
def test_minimising_the_mirrored_values_decides_the_same(drawn, shift, z):
    curves = [saturating(level, time) for level, time in drawn]
    mirrored = [[shift - value for value in values] for values in curves]
    up, down = pruner(z=z), pruner(z=z)
    said = (
        asked(study_of(up, curves[1:]), curves[0][:9]),
        asked(study_of(down, mirrored[1:], "minimize"), mirrored[0][:9]),
    )
    ours, theirs = up.last.attributes, down.last.attributes
    assert theirs[FORECAST] == pytest.approx(shift - ours[FORECAST], abs=1e-6)
    assert theirs[FORECAST_BAR] == pytest.approx(shift - ours[FORECAST_BAR], abs=1e-6)
    assert theirs[FORECAST_SPREAD] == pytest.approx(ours[FORECAST_SPREAD], abs=1e-6)
    if abs(ours[FORECAST] + z * ours[FORECAST_SPREAD] - ours[FORECAST_BAR]) > 1e-6:
        assert said[0] == said[1]


@pytest.mark.parametrize(("changes", "message"), [
    ({"z": -1.0}, "z=-1.0 must be at least 0"),
    ({"z": math.inf}, "z=inf must be a finite number"),
    ({"n_startup_trials": 4}, "n_startup_trials=4 must be at least 5"),
    ({"n_warmup_steps": 0}, "n_warmup_steps=0 must be at least 1"),
    ({"interval_steps": 0}, "interval_steps=0 must be at least 1"),
    ({"max_epochs": 0}, "max_epochs=0 must be at least 1"),
])  # fmt: skip
def test_a_wrong_argument_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        pruner(**changes)
