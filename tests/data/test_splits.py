"""``SplitData`` over samples that are nothing but their keys."""

import pytest

from winnow.data.plan import LoadingSettings, SampleKey
from winnow.data.splits import DataFacts, SplitData, chosen_samples
from winnow.errors import ConfigError


def loading(**changes):
    plain = {
        "batch_size": 4,
        "num_workers": 0,
        "drop_last": False,
        "seed": 0,
        "subset_size": None,
        "subset_seed": 1,
        "overfit": None,
    }
    return LoadingSettings(**plain | {"overfit": None} | changes)


class Keys:
    """A sample is its key; ``together`` gives those of a batch at once."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        return key


class KeysTogether(Keys):
    def __getitems__(self, keys):
        return [self[key] for key in keys]


def data(num_train=10, num_val=6, kind=Keys, **changes):
    return SplitData(DataFacts(("a",), "f", 32), kind(num_train), kind(num_val), list, loading(**changes))


@pytest.mark.parametrize("kind", [Keys, KeysTogether])
def test_a_preview_is_the_first_validation_samples_in_batches_of_the_usual_size(kind):
    shown = list(data(kind=kind).preview(5, 16))
    assert shown == [[SampleKey(0, index, 16) for index in range(4)], [SampleKey(0, 4, 16)]]
    assert [len(batch) for batch in data(kind=kind).preview(99, 16)] == [4, 2]


def test_what_is_left_of_an_epoch_is_counted_from_the_first_sample_not_taken():
    split = data()
    assert (split.num_train_samples, split.num_train_batches(), split.num_train_batches(4)) == (10, 3, 2)
    assert (split.smallest_batch(), split.smallest_batch(2), split.smallest_share()) == (2, 4, 2)
    assert data(rank=1, ranks=2).smallest_share() == 1
    assert [len(batch) for batch in split.train_batches(1, 16, start_sample=3)] == [4, 3]


def test_no_batch_to_train_on_is_an_error():
    with pytest.raises(ConfigError, match="training.batch_size=4 .* no batch of the 3 training images"):
        data(num_train=3, drop_last=True)


def test_a_subset_is_drawn_by_its_own_seed_and_an_overfit_run_takes_the_first_of_it(caplog):
    assert chosen_samples(5, loading()) == [0, 1, 2, 3, 4]
    subset = chosen_samples(100, loading(subset_size=10, seed=7))
    assert subset == sorted(set(subset)) == chosen_samples(100, loading(subset_size=10, seed=8))
    assert subset != chosen_samples(100, loading(subset_size=10, subset_seed=2))
    assert chosen_samples(100, loading(subset_size=10, overfit=3)) == subset[:3]
    assert chosen_samples(5, loading(subset_size=9)) == [0, 1, 2, 3, 4]
    assert not caplog.messages
    assert chosen_samples(2, loading(overfit=3)) == [0, 1]
    assert caplog.messages == ["training.overfit=3: there are only 2 training samples"]
