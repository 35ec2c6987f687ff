"""The rule behind `winnow compare`, against simulation, SciPy's own t-test and direct computation."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from winnow.odds.verdict import (
    BETTER,
    CANT_TELL,
    WORSE,
    Spread,
    contrast_variance,
    expected_value,
    judge,
    pooled,
    power,
    repeats_needed,
    without_luck,
)


def test_without_further_repeats_it_is_students_test():
    rng = np.random.default_rng(0)
    for shift in (0.0, 2.0, 4.0):
        first, second = rng.normal(0, 1, 3), rng.normal(shift, 1, 4)
        verdict, test = judge(first, second), ttest_ind(second, first)
        assert (verdict.word != CANT_TELL) == (test.pvalue < 0.05)
        assert verdict.probability == pytest.approx(1 - test.pvalue / 2 if test.statistic > 0 else test.pvalue / 2)
        low, high = test.confidence_interval(0.95)
        assert (verdict.low, verdict.high) == pytest.approx((low, high))


@pytest.mark.parametrize(("shift", "at_least", "at_most"), [(0.0, 0.036, 0.064), (2.0, 0.58, 1.0), (3.0, 0.90, 1.0)])
def test_three_seeds_a_side_with_14_further_repeats(shift, at_least, at_most):
    """1,000 comparisons of normal values; benchmarks/verdicts.py makes 10,000."""
    rng, found = np.random.default_rng(1), 0
    for _ in range(1000):
        known = Spread(float(np.std(rng.normal(0, 1, 14), ddof=1)), 13, "further repeats")
        found += judge(rng.normal(0, 1, 3), rng.normal(shift, 1, 3), known).word != CANT_TELL
    assert at_least <= found / 1000 <= at_most


def test_words_follow_the_direction():
    known = Spread(0.01, 30, "x")
    assert judge([0.5], [0.6], known).word == BETTER
    assert judge([0.5], [0.4], known).word == WORSE
    assert judge([0.5], [0.6], known, maximize=False).word == WORSE
    verdict = judge([0.5], [0.51], known)
    assert verdict.word == CANT_TELL
    assert verdict.low < verdict.difference < verdict.high
    assert verdict.repeats == repeats_needed(0.01, 0.01)


def test_one_run_each_with_no_spread_cant_tell_and_says_what_it_takes():
    verdict = judge([0.5], [0.9])
    assert (verdict.word, verdict.spread, verdict.low) == (CANT_TELL, None, None)
    assert verdict.repeats == 4


def test_repeats_needed_are_the_fewest():
    rng = np.random.default_rng(2)
    for difference in (1.0, 2.0):
        number = repeats_needed(difference, 1.0)
        rate = {}
        for count in (number - 1, number):
            a, b = rng.normal(0, 1, (2000, count)), rng.normal(difference, 1, (2000, count))
            rate[count] = float((ttest_ind(b, a, axis=1).pvalue < 0.05).mean())
            assert rate[count] == pytest.approx(power(difference / math.sqrt(2 / count), 2 * (count - 1)), abs=0.03)
        assert rate[number - 1] < 0.8 + 0.03
        assert rate[number] > 0.8 - 0.03
    assert repeats_needed(0.001, 1.0) is None
    assert repeats_needed(1.0, 0.1, images=1.0) is None  # another validation set would be needed, not more seeds


def test_images_widen_the_interval_by_what_seeds_do_not_explain():
    first, second, known = [0.5, 0.51, 0.52], [0.55, 0.56, 0.57], Spread(0.01, 13, "x")
    plain = judge(first, second, known)
    assert plain.word == BETTER
    seeds = plain.spread.sigma**2 * 2 / 3
    explained = judge(first, second, known, image_variance=seeds, within_images=seeds)
    assert (explained.low, explained.high) == pytest.approx((plain.low, plain.high))
    wide = judge(first, second, known, image_variance=0.04**2, within_images=0.0)
    assert wide.word == CANT_TELL
    assert wide.image_sigma == pytest.approx(0.04)
    # With nothing known of what seeds explain, the larger of both spreads counts.
    assert judge(first, second, known, image_variance=seeds / 2).low == pytest.approx(plain.low)


def test_pooled_spread_is_that_of_all_residuals():
    values = [[1.0, 2.0, 4.0], [10.0, 11.0], [5.0]]
    spread = pooled(values)
    residuals = np.concatenate([np.subtract(group, np.mean(group)) for group in values])
    assert (spread.sigma, spread.degrees) == (pytest.approx(math.sqrt((residuals**2).sum() / 3)), 3)
    both = pooled(values, Spread(2.0, 5, "the study"))
    assert both.sigma == pytest.approx(math.sqrt((spread.sigma**2 * 3 + 4.0 * 5) / 8))
    assert (both.degrees, both.source) == (8, "these runs and the study")
    assert pooled([[1.0], [2.0]]) is None


def test_variance_of_a_contrast_from_those_of_pairs():
    rng = np.random.default_rng(3)
    samples = rng.normal(size=(4, 4)) @ rng.normal(size=(4, 500))
    pairs = {(i, j): float(np.var(samples[i] - samples[j])) for i in range(4) for j in range(i + 1, 4)}
    weights = [-0.5, -0.5, 0.75, 0.25]
    assert contrast_variance(pairs, weights) == pytest.approx(float(np.var(np.asarray(weights) @ samples)))


def test_the_stated_value_of_what_was_kept_for_its_luck_is_near_the_truth():
    """Of runs that are called better than another, though nothing was changed: they are 1.6 σ too high themselves."""
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(2, 20_000))
    lucky = second - first > 1.96 * math.sqrt(2)
    stated = [
        expected_value([a], [b], b - a, math.sqrt(2), 1.0, 1.0)
        for a, b in zip(first[lucky], second[lucky], strict=True)
    ]
    assert second[lucky].mean() > 1.3
    assert abs(np.mean(stated)) < 0.5


def test_the_stated_difference_is_the_mean_of_the_posterior():
    grid = np.linspace(-40, 40, 400_001)
    for difference, error, sigma in ((2.0, 1.0, 1.0), (0.3, 0.5, 2.0), (-4.0, 1.4, 1.0)):
        slab = np.exp(-0.5 * (grid / (2 * sigma)) ** 2) / (2 * sigma * math.sqrt(2 * math.pi))
        likelihood = np.exp(-0.5 * ((difference - grid) / error) ** 2)
        real, idle = 0.1 * slab * likelihood * (grid[1] - grid[0]), 0.9 * math.exp(-0.5 * (difference / error) ** 2)
        expected = float((grid * real).sum() / (real.sum() + idle))
        assert without_luck(difference, error, sigma) == pytest.approx(expected, rel=1e-3)
    assert without_luck(0.0, 1.0, 1.0) == 0.0
    assert without_luck(300.0, 1.0, 1.0) == pytest.approx(240.0)
