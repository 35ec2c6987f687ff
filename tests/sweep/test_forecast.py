"""The forecast of a learning curve's end: its features, its regression, and what it must not depend on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.sweep.forecast import PENALTY, features_at, final_value, forecast_final, ridge, smooth_value

NAN = math.nan


def curve(values):
    return dict(enumerate(values, 1))


def saturating(level, time, epochs=30):
    return curve((level * (1 - np.exp(-np.arange(1, epochs + 1) / time))).tolist())


@pytest.mark.parametrize(("values", "epoch", "smooth"), [
    ({1: 1, 2: 2, 3: 3, 4: 4}, 4, 3),                       # the last three epochs
    ({1: 1, 2: 2}, 2, 1.5),                                 # as many as there are
    ({1: 1, 2: 2, 3: 9}, 2, 1.5),                           # nothing from later
    ({5: 1, 10: 2, 15: 3}, 10, 2),                          # evaluated every fifth epoch
    ({5: 1, 10: 2, 15: 3}, 14, 2),                          # in a gap: the latest before
    ({5: 1, 10: 2}, 3, 1),                                  # before the first: the first
    ({1: 1, 2: NAN, 3: 3}, 3, 2),                           # NaN is a gap
    ({1: 4, 2: NAN, 3: math.inf, 4: -math.inf, 5: NAN}, 5, 4),
    ({3: 3, 1: 1, 2: 2}, 2, 1.5),                           # in any order
])  # fmt: skip
def test_a_value_is_the_mean_of_three_epochs_where_there_are_as_many(values, epoch, smooth):
    assert smooth_value(values, epoch) == pytest.approx(smooth)


def test_features_are_now_and_the_gains_of_the_last_two_thirds():
    steps = curve([0.0] * 3 + [1.0] * 3 + [3.0] * 3)
    assert features_at(steps, 9) == (3.0, 2.0, 1.0)
    assert features_at({epoch: value + 5 for epoch, value in steps.items()}, 9) == (8.0, 2.0, 1.0)


def test_the_final_value_is_the_mean_of_the_last_three_epochs():
    assert final_value(curve([9, 9, 1, 2, 3])) == 2
    assert final_value({10: 1.0, 20: 2.0}) == 2


def brute_force(features, targets, asked):
    """Return the same penalised least squares by another road: rows added for the penalty, solved by QR."""
    k = features.shape[1]
    design = np.vstack(
        [
            np.column_stack([np.ones(len(features)), features]),
            np.column_stack([np.zeros(k), np.sqrt(PENALTY) * np.eye(k)]),
        ]
    )
    coefficients = np.linalg.lstsq(design, np.concatenate([targets, np.zeros(k)]), rcond=None)[0]
    return coefficients[0] + asked @ coefficients[1:]


@pytest.mark.parametrize("n", [3, 4, 6, 40])
@pytest.mark.parametrize("k", [1, 3])
def test_ridge_and_its_residuals_equal_refits_without_each_sample(n, k):
    rng = np.random.default_rng(n + k)
    features, targets, asked = rng.normal(0.4, 0.2, (n, k)), rng.normal(size=n), rng.normal(size=(2, k))
    predictions, residuals = ridge(features, targets, asked)
    scale = features.std(axis=0)
    np.testing.assert_allclose(predictions, brute_force(features / scale, targets, asked / scale), rtol=1e-9)
    keep = ~np.eye(n, dtype=bool)
    left_out = [
        targets[i] - brute_force((features / scale)[keep[i]], targets[keep[i]], features[i] / scale) for i in range(n)
    ]
    np.testing.assert_allclose(residuals, left_out, rtol=1e-8)


def test_the_spread_is_the_standard_deviation_of_forecasts_of_each_finished_curve_from_the_others():
    rng = np.random.default_rng(3)
    finished = [saturating(rng.uniform(0.3, 0.7), rng.uniform(3, 16)) for _ in range(9)]
    features = np.array([features_at(other, 10) for other in finished])
    gains = np.array([final_value(other) for other in finished]) - features[:, 0]
    scaled, keep = features / features.std(axis=0), ~np.eye(9, dtype=bool)
    errors = [gains[i] - brute_force(scaled[keep[i]], gains[keep[i]], scaled[i]) for i in range(9)]
    made = forecast_final(finished[0], finished, 10, 6)
    assert made.spread == pytest.approx(math.sqrt(sum(error**2 for error in errors) / (9 - 4)))


def test_a_feature_without_spread_is_harmless():
    features = np.column_stack([np.full(6, 0.3), np.arange(6.0)])
    predictions, residuals = ridge(features, np.arange(6.0), np.array([[0.3, 2.5], [99.0, 2.5]]))
    assert predictions == pytest.approx([2.5, 2.5])
    assert np.isfinite(residuals).all()


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_a_feature_that_differs_by_rounding_alone_says_nothing(size):
    rounding = size + 1e-10 * (1 + size) * np.arange(6.0)
    with_it = np.stack([np.arange(6.0) ** 2, rounding], axis=1)
    predictions, residuals = ridge(with_it, np.arange(6.0), np.array([[3.0, size + 1e-9 * (1 + size)]]))
    alone, residuals_alone = ridge(with_it[:, :1], np.arange(6.0), np.array([[3.0]]))
    assert predictions == pytest.approx(alone)
    assert residuals == pytest.approx(residuals_alone)


def test_a_slow_curve_is_forecast_to_overtake_the_value_it_has():
    rng = np.random.default_rng(0)
    finished = [saturating(rng.uniform(0.3, 0.7), rng.uniform(3, 16)) for _ in range(20)]
    made = forecast_final(saturating(0.6, 14), finished, epoch=9, min_finished=6)
    now, end = smooth_value(saturating(0.6, 14), 9), final_value(saturating(0.6, 14))
    assert abs(made.final - end) < 0.25 * (end - now)
    assert made.bar == pytest.approx(max(final_value(other) for other in finished))


@pytest.mark.parametrize(("curves", "made"), [
    ([saturating(0.5, 5)] * 5, False),
    ([saturating(0.5, 5)] * 6, True),
    ([saturating(0.5, 5)] * 5 + [saturating(0.5, 5, epochs=8)], False),         # stopped early, before this epoch
    ([saturating(0.5, 5)] * 5 + [{}], False),                                   # finished without a report
    ([saturating(0.5, 5)] * 5 + [{20: 0.4, 30: 0.5}], False),                   # no value at this epoch
    ([saturating(0.5, 5)] * 5 + [dict.fromkeys(range(1, 31), NAN)], False),
    ([saturating(0.5, 5)] * 5 + [dict.fromkeys(range(5, 31, 5), 0.5)], True),     # evaluated every fifth epoch
])  # fmt: skip
def test_a_forecast_wants_six_finished_curves_that_can_teach(curves, made):
    assert (forecast_final(saturating(0.4, 5, epochs=10), curves, 10, 6) is not None) == made


def test_a_curve_without_any_value_has_no_forecast():
    assert forecast_final({1: NAN, 2: NAN}, [saturating(0.5, 5)] * 6, 2, 6) is None


def test_a_run_that_stopped_early_sets_the_bar_though_it_teaches_nothing():
    early = saturating(0.9, 1, epochs=5)
    made = forecast_final(saturating(0.4, 5, 10), [*[saturating(0.5, 5)] * 6, early], 10, 6)
    assert made.bar == pytest.approx(final_value(early))
    assert made.num_finished == 6


levels = st.lists(st.tuples(st.floats(0.05, 0.9), st.floats(1, 20)), min_size=7, max_size=12)


@settings(max_examples=60, deadline=None)
@given(levels, st.floats(-5, 5), st.floats(0.01, 100), st.integers(2, 28))
def test_the_forecast_moves_and_scales_with_its_curves(drawn, shift, scale, epoch):
    curves = [saturating(level, time) for level, time in drawn]
    changed = [{e: shift + scale * value for e, value in other.items()} for other in curves]
    plain = forecast_final(curves[0], curves[1:], epoch, 6)
    moved = forecast_final(changed[0], changed[1:], epoch, 6)
    tolerance = 1e-6 * (abs(shift) + scale)
    assert moved.final == pytest.approx(shift + scale * plain.final, abs=tolerance)
    assert moved.bar == pytest.approx(shift + scale * plain.bar, abs=tolerance)
    assert moved.spread == pytest.approx(scale * plain.spread, abs=tolerance)
