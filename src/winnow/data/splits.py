"""A training and a validation set behind their loaders: what every kind of data shares of ``protocols.Data``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Dataset

from winnow.data.loader import BatchLoader
from winnow.data.plan import BatchPlan, LoadingSettings
from winnow.errors import ConfigError


class LoadedSplits:
    """``train`` and ``val`` give a sample per ``SampleKey`` with an index below ``num_train`` and ``num_val``; ``collate`` makes
    a batch of what they give for the keys of one. ConfigError where no training batch is left."""

    def __init__(
        self,
        train: Dataset[Any],
        num_train: int,
        val: Dataset[Any],
        num_val: int,
        collate: Callable[[Any], Any],
        loading: LoadingSettings,
        patience_seconds: float,
    ) -> None:
        size, rank, ranks = loading.batch_size, loading.rank, loading.ranks
        shuffle_seed = None if loading.overfit is not None else loading.seed
        self._ranks = ranks
        self._train_plan = BatchPlan(num_train, size, shuffle_seed, loading.drop_last, rank, ranks)
        self._val_plan = BatchPlan(num_val, size, None, drop_last=False, rank=rank, ranks=ranks)
        self._train_loader = BatchLoader(train, self._train_plan, collate, loading.num_workers, patience_seconds)
        self._val_loader = BatchLoader(val, self._val_plan, collate, loading.num_workers, patience_seconds)
        self.num_train_samples = num_train
        if self._train_plan.num_batches() == 0:
            raise ConfigError(
                f"training.batch_size={size} with training.drop_last=true leaves no batch of the {num_train} training images"
                + (f" for {ranks} ranks" if ranks > 1 else "")
            )

    def num_train_batches(self, start_sample: int) -> int:
        return self._train_plan.num_batches(start_sample)

    def train_batches(self, epoch: int, image_size: int, start_sample: int) -> Iterator[Any]:
        self._train_plan.set(epoch, image_size, start_sample)
        return iter(self._train_loader)

    def num_val_batches(self) -> int:
        return self._val_plan.num_batches()

    def val_batches(self, image_size: int) -> Iterator[Any]:
        self._val_plan.set(0, image_size, 0)
        return iter(self._val_loader)

    def smallest_batch(self, start_sample: int) -> int:
        """Samples of the smallest batch over all ranks in what is left of an epoch after its first ``start_sample`` samples."""
        size = self._train_plan.batch_size
        rest = (self.num_train_samples - start_sample) % size
        return size if rest == 0 or self._train_plan.drop_last else rest

    def smallest_share(self, start_sample: int) -> int:
        """Samples of the smallest share that a rank has of such a batch; 0 where one goes empty."""
        return self.smallest_batch(start_sample) // self._ranks
