"""Images of rare classes come more often, the order stays a pure function, and a stratified subset keeps the shares."""

import itertools

import numpy as np
import pytest

from winnow.data.balance import Objects, draw_epoch, epoch_length, repeat_factors, stratified_subset
from winnow.data.plan import BatchPlan, LoadingSettings, sample_seed
from winnow.data.splits import DataFacts, SplitData, chosen_samples
from winnow.errors import ConfigError

FACTORS = np.array([1.0, 2.5, 1.0, 1.25, 3.0, 1.0])
LOADING = {
    "batch_size": 2, "num_workers": 0, "drop_last": False, "seed": 0, "subset_size": None, "subset_seed": 0, "overfit": None,
}  # fmt: skip


def objects_of(images, num_classes):
    owners = [row for row, labels in enumerate(images) for _ in labels]
    return Objects(
        np.array(owners), np.array([label for labels in images for label in labels]), len(images), num_classes
    )


def test_factors_are_those_of_the_paper():
    """f = 1, 1/4 and 1/100 of the images, threshold 1/4: √(t/f) = 1/2, 1 and 5; class 3 has no object."""
    images = [[0, 0, 0]] * 75 + [[0, 1]] * 24 + [[1, 2, 0]]
    factors = repeat_factors(objects_of(images, 4), 0.25)
    assert factors.tolist() == [1.0] * 99 + [5.0]
    assert repeat_factors(objects_of([[], [0], [], []], 1), 1.0).tolist() == [1, 2, 1, 1]


def test_an_epoch_has_each_image_as_often_as_its_factor_says_on_average():
    draws = [draw_epoch(FACTORS, np.random.default_rng([0, epoch]))[0] for epoch in range(2000)]
    assert {len(draw) for draw in draws} == {epoch_length(FACTORS)} == {10}
    counts = np.array([np.bincount(draw, minlength=6) for draw in draws])
    scaled = FACTORS * 10 / FACTORS.sum()
    assert counts.mean(axis=0) == pytest.approx(scaled, abs=0.05)
    assert (counts >= np.floor(scaled)).all()
    assert (counts <= np.ceil(scaled)).all()
    assert len({tuple(draw) for draw in draws}) > 1900


def test_factors_of_1_make_an_epoch_of_each_image_once():
    samples, repeats = draw_epoch(np.ones(50), np.random.default_rng(0))
    assert sorted(samples.tolist()) == list(range(50))
    assert not repeats.any()


def keys_of(start_sample=0, epoch=3, **ranks):
    plan = BatchPlan(6, 2, 7, drop_last=False, factors=FACTORS, **ranks)
    plan.set(epoch, 64, start_sample)
    return list(plan)


def test_the_order_is_a_function_of_seed_epoch_and_index():
    whole = [key for batch in keys_of() for key in batch]
    assert len(whole) == 10
    for start in (0, 1, 4, 9):
        assert [key for batch in keys_of(start) for key in batch] == whole[start:]
    assert whole != [key for batch in keys_of(epoch=4) for key in batch]
    shares = [keys_of(rank=rank, ranks=2) for rank in (0, 1)]
    assert [key for batches in zip(*shares, strict=True) for batch in batches for key in batch] == whole


def test_what_comes_again_is_augmented_anew_and_what_comes_once_as_ever():
    whole = [key for batch in keys_of() for key in batch]
    assert len(set(whole)) == len(whole), "each time that an image comes has a key of its own"
    assert {key.repeat for key in whole if key.sample == 4} == {0, 1, 2}
    seeds = {sample_seed(1, *pair) for pair in itertools.product([1], [4], [0, 1, 2])}
    assert len(seeds) == 3
    assert sample_seed(1, 1, 4) == sample_seed(1, 1, 4, 0)


def test_the_steps_of_an_epoch_are_those_of_its_samples():
    facts = DataFacts(("a",), "", 32)
    data = SplitData(facts, range(6), [], list, LoadingSettings(**LOADING), factors=FACTORS)
    assert (data.num_train_samples, data.num_train_batches(), data.num_train_batches(3)) == (10, 5, 4)
    assert data.smallest_batch(1) == 1


def test_data_without_classes_refuses_to_balance_them():
    facts = DataFacts(("a",), "", 32)
    with pytest.raises(ConfigError, match="training.class_balance=repeat_factor: this data has no classes to balance"):
        SplitData(facts, range(6), [], list, LoadingSettings(**LOADING | {"class_balance": "repeat_factor"}))
    with pytest.raises(ConfigError, match="training.subset_stratified=true: this data has no classes"):
        chosen_samples(6, LoadingSettings(**LOADING | {"subset_stratified": True}))


def test_a_stratified_subset_keeps_the_shares_and_the_rarest_class():
    images = [[0]] * 600 + [[0, 1]] * 200 + [[]] * 195 + [[2]] * 4 + [[3, 0]]
    objects = objects_of(images, 5)
    for seed in range(5):
        chosen = stratified_subset(objects, 100, seed)
        assert len(set(chosen.tolist())) == 100
        assert (np.diff(chosen) > 0).all()
        kinds = [images[row] for row in chosen]
        assert sum(3 in kind for kind in kinds) == 1
        assert sum(2 in kind for kind in kinds) == 1
        assert sum(1 in kind for kind in kinds) == pytest.approx(20, abs=1)
        assert sum(not kind for kind in kinds) == pytest.approx(20, abs=1)
    assert stratified_subset(objects, 100, 1).tolist() != chosen.tolist()
    assert stratified_subset(objects, 100, 4).tolist() == chosen.tolist()


def test_a_stratified_subset_smaller_than_the_classes_takes_the_rarest():
    images = [[0]] * 10 + [[1]] * 5 + [[2]]
    assert stratified_subset(objects_of(images, 3), 1, 0).tolist() == [15]
