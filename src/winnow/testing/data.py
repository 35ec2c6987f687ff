"""What every ``protocols.Data`` must keep to, as a suite of tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from winnow.data.plan import LoadingSettings
from winnow.protocols import Batch, Data
from winnow.testing.contents import digest

PLAIN: dict[str, Any] = {
    "batch_size": 1, "num_workers": 0, "drop_last": False, "seed": 3, "subset_size": None, "subset_seed": 42, "overfit": None,
}  # fmt: skip


class DataContract:
    """Subclass it as ``Test…`` and give ``make_data``, of at least five training samples that are not all alike."""

    image_size = 64
    """Pixels at which samples are read."""
    augments = True
    """Whether the same training sample looks different in another epoch."""

    def make_data(self, loading: LoadingSettings) -> Data:
        """Return the data set anew."""
        raise NotImplementedError

    def data(self, **changes: Any) -> Data:
        return self.make_data(LoadingSettings.model_validate({**PLAIN, **changes}))

    def train(self, epoch: int = 1, start_sample: int = 0, **changes: Any) -> list[str]:
        """Return checksums of the batches of an epoch."""
        return [digest(batch) for batch in self.data(**changes).train_batches(epoch, self.image_size, start_sample)]

    def test_samples_are_a_function_of_seed_and_epoch_whatever_was_read_before(self) -> None:
        data = self.data()
        first = [digest(batch) for batch in data.train_batches(2, self.image_size)]
        abandoned = data.train_batches(1, self.image_size)
        next(abandoned)
        torch.rand(5)
        again = [digest(batch) for batch in data.train_batches(2, self.image_size)]
        assert again == first, "what was read before changes an epoch"
        assert self.train(2) == first, "a new object gives another epoch"

    def test_order_and_augmentation_differ_between_epochs_and_seeds(self) -> None:
        first, second = (self._looks(self.data().train_batches(epoch, self.image_size)) for epoch in (1, 2))
        other = self._looks(self.data(seed=PLAIN["seed"] + 1).train_batches(1, self.image_size))
        assert first != second, "epochs 1 and 2 have the same samples in the same order"
        assert first != other, "another seed changes nothing"
        if self.augments:
            assert Counter(first) != Counter(second), "every sample looks the same in epochs 1 and 2"
        else:
            assert Counter(first) == Counter(second), "samples look different in epochs 1 and 2: set augments = True"

    def test_neither_workers_nor_a_resume_in_mid_epoch_change_a_bit(self) -> None:
        whole = self.train(2, batch_size=2)
        assert self.train(2, batch_size=2, num_workers=2) == whole, "two workers give other batches than none"
        assert self.train(2, start_sample=2, batch_size=2, num_workers=1) == whole[1:], "a resume gives other batches"
        singles = self.train(2)
        assert self.train(2, start_sample=3) == singles[3:], "a resume at sample 3 gives other samples"

    def test_batches_and_samples_are_counted_as_they_come(self) -> None:
        for drop_last in (False, True):
            data = self.data(batch_size=2, drop_last=drop_last)
            for start in (0, 1, 2):
                sizes = [batch.num_samples for batch in data.train_batches(1, self.image_size, start)]
                assert len(sizes) == data.num_train_batches(start), f"num_train_batches({start}) is not what comes"
                assert min(sizes) == data.smallest_batch(start) == data.smallest_share(start), f"smallest from {start}"
                if not drop_last:
                    assert sum(sizes) == data.num_train_samples - start, "num_samples do not add up to the samples left"

    def test_ranks_share_the_batches_of_one(self) -> None:
        whole = [digest(batch) for batch in self.data().train_batches(1, self.image_size)]
        shares = [list(self.data(rank=rank, ranks=2).train_batches(1, self.image_size)) for rank in (0, 1)]
        assert len(shares[0]) == len(shares[1]), "ranks have a different number of batches"
        together = [batch for pair in zip(*shares, strict=True) for batch in pair if batch.num_samples]
        assert [digest(batch) for batch in together] == whole, "two ranks read other samples than one"

    def test_a_rank_without_a_share_gets_an_empty_batch(self) -> None:
        ranks = self.data().num_train_samples - 1
        assert ranks > 3, "the suite needs at least five training samples"
        data = self.data(rank=ranks - 1, ranks=ranks)
        *_, last = data.train_batches(1, self.image_size)
        assert last.num_samples == 0, "the last share should be empty"
        assert last.shape[0] == 0, "an empty batch has images"
        assert not list(last.image_ids), "an empty batch has image ids"
        assert last.to(torch.device("cpu")).num_samples == 0, "an empty batch can not be moved"
        assert data.smallest_share() == 0, "smallest_share must say that a rank goes empty"

    def test_validation_covers_each_sample_once_in_one_order(self) -> None:
        singles = self._ids(self.data().val_batches(self.image_size))
        assert len(set(singles)) == len(singles), "a validation sample comes twice, or two have the same id"
        for size in (2, len(singles) + 1):
            data = self.data(batch_size=size, num_workers=1)
            batches = list(data.val_batches(self.image_size))
            assert self._ids(batches) == singles, f"batches of {size} hold other samples than single ones"
            assert len(batches) == data.num_val_batches(), "num_val_batches is not what comes"
        of_ranks = [self._ids(self.data(rank=rank, ranks=2).val_batches(self.image_size)) for rank in (0, 1)]
        assert sorted(map(str, of_ranks[0] + of_ranks[1])) == sorted(map(str, singles)), (
            "ranks do not share the samples"
        )

    def test_validation_is_never_augmented(self) -> None:
        first, second = (
            [digest(batch) for batch in self.data(seed=seed).val_batches(self.image_size)] for seed in (0, 1)
        )
        assert first == second, "validation samples depend on the seed of the training"

    def test_a_preview_is_the_first_of_the_validation(self) -> None:
        data = self.data(batch_size=2)
        shown = list(data.preview(3, self.image_size))
        assert self._ids(shown) == self._ids(data.val_batches(self.image_size))[:3], "a preview shows other samples"
        assert [batch.num_samples for batch in shown] == [2, 1], "a preview has batches of the usual size"

    def test_the_fingerprint_tells_the_samples_and_nothing_else(self) -> None:
        own = self.data().fingerprint
        assert self.data(batch_size=2, seed=9, num_workers=1).fingerprint == own, (
            "the same samples, another fingerprint"
        )
        fewer = self.data(subset_size=self.data().num_train_samples - 1)
        assert fewer.num_train_samples == self.data().num_train_samples - 1, "training.subset_size is not obeyed"
        assert fewer.fingerprint != own, "other samples, the same fingerprint"

    def test_an_overfit_run_is_evaluated_on_what_it_trains_on(self) -> None:
        data = self.data(overfit=2)
        assert data.num_train_samples == 2
        trained, again = (self._looks(data.train_batches(epoch, self.image_size)) for epoch in (1, 2))
        assert trained == again, "an overfit run must see the same samples in the same order"
        assert sorted(self._ids(data.val_batches(self.image_size))) == sorted(
            self._ids(data.train_batches(1, self.image_size))
        ), "it must be evaluated on the samples that it trains on"

    def _looks(self, batches: Iterable[Batch]) -> list[str]:
        return [digest(batch, tensors_only=True) for batch in batches]

    def _ids(self, batches: Iterable[Batch]) -> list[int | str]:
        return [image_id for batch in batches for image_id in batch.image_ids]
