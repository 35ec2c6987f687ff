"""What is said of a search's winner: expected value, rank correlation, importances, against simulation."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from winnow.odds.importance import importances
from winnow.odds.ranks import rank_forecast, shared_ranking
from winnow.odds.winner import expected_values


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_the_winner_is_lowered_by_its_luck_and_the_interval_holds(spread):
    """60 searches of 48 trials with noise 1; benchmarks/winners.py has landscapes and recorded searches."""
    naive, bias, held = [], [], 0
    for replay in range(60):
        rng = np.random.default_rng([3, replay])
        truth = rng.normal(5, spread, 48)
        values, again = truth + rng.normal(size=48), truth + rng.normal(size=48)
        best = int(np.argmax(values))
        expected = expected_values(values.tolist(), 1.0)[best]
        naive.append(values[best] - again[best])
        bias.append(expected.value - again[best])
        held += expected.low <= again[best] <= expected.high
    assert abs(np.mean(bias)) < 0.5
    assert spread == 4.0 or np.mean(naive) > 1.0
    assert 0.68 <= held / 60 <= 0.95


def test_expected_values_turn_with_the_direction_and_keep_few_values():
    rng = np.random.default_rng(0)
    values = rng.normal(size=30).tolist()
    up, down = expected_values(values, 0.5), expected_values([-value for value in values], 0.5, maximize=False)
    assert [one.value for one in up] == pytest.approx([-other.value for other in down])
    assert [one.value for one in expected_values([0.1, 0.2], 0.5)] == [0.1, 0.2]
    assert [one.value for one in expected_values([0.1, 0.2, 0.3, 0.5], 0.0)] == pytest.approx([0.1, 0.2, 0.3, 0.5])


def test_noise_lowers_the_rank_correlation_to_expect_as_it_does_between_two_searches():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=400)
    first, second = truth + rng.normal(0, 0.7, 400), truth + rng.normal(0, 0.7, 400)
    assert shared_ranking(first, 0.7) == pytest.approx(spearmanr(first, second).statistic, abs=0.08)
    assert shared_ranking(first, 0.0) == pytest.approx(1.0)


def test_rank_forecast_of_curves():
    level = np.linspace(0.1, 1.0, 20)
    parallel = level[:, None] * np.linspace(0.5, 1.0, 9)
    forecast = rank_forecast(parallel.tolist(), None, 3.0)
    assert forecast.value == pytest.approx(0.995)  # never quite sure
    assert forecast.trials == 20
    crossing = np.where(np.arange(9) < 3, level[::-1, None], level[:, None])
    crossed = rank_forecast(crossing.tolist(), None, 3.0)
    assert crossed.low < -0.9
    assert crossed.value < forecast.value - 0.5
    assert rank_forecast(parallel[:7].tolist(), None, 3.0) is None
    assert rank_forecast(np.ones((20, 9)).tolist(), None, 3.0) is None


def columns_and_values(shares, seed, noise=0.25):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (48, len(shares)))
    y = x @ (np.sqrt(3 * np.array(shares)))
    return {f"p{k}": x[:, k].tolist() for k in range(len(shares))}, (y + rng.normal(0, noise, 48)).tolist()


def test_the_most_important_parameter_is_named_only_where_it_is_one():
    named = [importances(*columns_and_values((0.5, 0.25, 0.15, 0.1), seed)).named for seed in range(20)]
    assert named.count("p0") >= 18
    equal = [importances(*columns_and_values((0.4, 0.4, 0.1, 0.1), seed)).named for seed in range(20)]
    assert equal.count(None) >= 14


def test_importances_are_shares_and_say_so_in_words():
    found = importances(*columns_and_values((0.8, 0.2, 0.0), 5, noise=0.01))
    shares = {one.name: one.share for one in found.parameters}
    assert shares["p0"] == pytest.approx(0.8, abs=0.12)
    assert shares["p2"] == pytest.approx(0.0, abs=0.02)
    assert found.words.startswith("p0 mattered most")
    choice = ["a", "b"] * 24
    told = importances({"kind": choice, "x": np.linspace(0, 1, 48).tolist()}, [float(c == "a") for c in choice])
    assert told.named == "kind"
    assert importances({"x": [1.0] * 48}, list(range(48))) is None
    assert importances({"x": [1.0, 2.0, 3.0]}, [1.0, 2.0, 3.0]) is None
