"""A training and a validation set behind their loaders: ``protocols.Data`` for every family whose samples are read one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from torch.utils.data import Dataset

from winnow.data.balance import Objects, stratified_subset
from winnow.data.loader import BatchLoader, require_batch
from winnow.data.plan import BatchPlan, LoadingSettings, SampleKey
from winnow.errors import ConfigError

logger = logging.getLogger(__name__)


class Samples(Protocol):
    """Gives a sample per ``SampleKey`` whose index is below its length, as a function of the key alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey, /) -> Any: ...


@dataclass(frozen=True)
class DataFacts:
    """What a data set says of itself, as in ``protocols.Data``."""

    classes: Sequence[str]
    fingerprint: str
    image_size: int


class SplitData:
    """Obeys ``protocols.Data`` over the samples of two splits; ``val`` may be empty.

    ``collate`` makes a batch of what ``train`` or ``val`` give for the keys of one; there may be none. Samples with
    ``__getitems__`` give all of them at once. ``patience_seconds`` is how long a folder that is gone is waited for. ``factors``
    say how often each training sample comes in an epoch (``training.class_balance``). Raises ConfigError where no training batch
    is left, and where classes are to be balanced without factors.
    """

    def __init__(
        self,
        facts: DataFacts,
        train: Samples,
        val: Samples,
        collate: Callable[[Any], Any],
        loading: LoadingSettings,
        patience_seconds: float = 0.0,
        factors: np.ndarray | None = None,
    ) -> None:
        if loading.class_balance != "none" and factors is None and loading.overfit is None:
            raise ConfigError(f"training.class_balance={loading.class_balance}: this data has no classes to balance")
        self.classes, self.fingerprint, self.image_size = facts.classes, facts.fingerprint, facts.image_size
        size, rank, ranks = loading.batch_size, loading.rank, loading.ranks
        shuffle_seed = None if loading.overfit is not None else loading.seed
        self._batch_size, self._ranks = size, ranks
        self._val, self._collate = val, collate
        self._train_plan = BatchPlan(len(train), size, shuffle_seed, loading.drop_last, rank, ranks, factors)
        self.num_train_samples = self._train_plan.num_samples
        self._val_plan = BatchPlan(len(val), size, None, drop_last=False, rank=rank, ranks=ranks)
        self._train_loader, self._val_loader = (
            BatchLoader(cast("Dataset[Any]", samples), plan, collate, loading.num_workers, patience_seconds)
            for samples, plan in ((train, self._train_plan), (val, self._val_plan))
        )
        if self._train_plan.num_batches() == 0:
            raise ConfigError(
                f"training.batch_size={size} with training.drop_last=true leaves no batch of the {len(train)} training images"
                + (f" for {ranks} ranks" if ranks > 1 else "")
            )

    def num_train_batches(self, start_sample: int = 0) -> int:
        return self._train_plan.num_batches(start_sample)

    def train_batches(self, epoch: int, image_size: int, start_sample: int = 0) -> Iterator[Any]:
        self._train_plan.set(epoch, image_size, start_sample)
        return self.checked(iter(self._train_loader))

    def num_val_batches(self) -> int:
        return self._val_plan.num_batches()

    def val_batches(self, image_size: int) -> Iterator[Any]:
        self._val_plan.set(0, image_size, 0)
        return self.checked(iter(self._val_loader))

    def smallest_batch(self, start_sample: int = 0) -> int:
        size = self._train_plan.batch_size
        rest = (self.num_train_samples - start_sample) % size
        return size if rest == 0 or self._train_plan.drop_last else rest

    def smallest_share(self, start_sample: int = 0) -> int:
        return self.smallest_batch(start_sample) // self._ranks

    def preview(self, count: int, image_size: int) -> Iterator[Any]:
        keys = [SampleKey(0, index, image_size) for index in range(min(count, len(self._val)))]
        for start in range(0, len(keys), self._batch_size):
            chosen = keys[start : start + self._batch_size]
            yield require_batch(self._collate(read_samples(self._val, chosen)), patience_seconds=0)

    def val_batches_of(self, image_ids: Sequence[int | str], image_size: int) -> Iterator[Any]:
        """Yield the validation samples of ``image_ids``, one in a batch, in this order, read in this process; an id that no
        sample has is passed over. Of samples without ``image_id(place)`` there are none. Raises DataError for
        one that can't be read."""
        id_at = getattr(self._val, "image_id", None)
        places = {} if id_at is None else {str(id_at(place)): place for place in range(len(self._val))}
        for image_id in image_ids:
            if str(image_id) in places:
                key = SampleKey(0, places[str(image_id)], image_size)
                yield require_batch(self._collate(read_samples(self._val, [key])), patience_seconds=0)

    def checked(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Pass on ``batches``; a family may look at what could not be read, and raise DataError."""
        return batches


def read_samples(samples: Samples, keys: Sequence[SampleKey]) -> Any:
    """Return what a loader would hand to ``collate`` for ``keys``."""
    read_all = getattr(samples, "__getitems__", None)
    return read_all(list(keys)) if read_all is not None else [samples[key] for key in keys]


def chosen_samples(num_samples: int, loading: LoadingSettings, objects: Objects | None = None) -> list[int]:
    """Return the indices, of ``num_samples``, that a run trains on: all, a random subset, one that is stratified by the classes
    of ``objects``, or the first few for an overfit run, which is to be evaluated on them too. Raises ConfigError where a subset
    is to be stratified and there are no classes."""
    chosen = list(range(num_samples))
    if loading.subset_stratified and objects is None:
        raise ConfigError("training.subset_stratified=true: this data has no classes")
    if loading.subset_size is not None and loading.subset_size < num_samples and loading.subset_stratified:
        assert objects is not None
        chosen = stratified_subset(objects, loading.subset_size, loading.subset_seed).tolist()
    elif loading.subset_size is not None and loading.subset_size < num_samples:
        order = np.random.default_rng(loading.subset_seed).permutation(num_samples)
        chosen = sorted(order[: loading.subset_size].tolist())
    if loading.overfit is not None and loading.overfit > len(chosen):
        logger.warning("training.overfit=%d: there are only %d training samples", loading.overfit, len(chosen))
    return chosen[: loading.overfit]
