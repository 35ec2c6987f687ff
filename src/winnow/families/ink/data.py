"""Ink data sets as the engine sees them: tiles behind loaders, the same for every ``data=ink_…``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch.utils.data import Dataset

from winnow.data.plan import LoadingSettings, SampleKey
from winnow.data.splits import LoadedSplits
from winnow.families.ink.batch import KEY_POINT_KINDS, InkBatch
from winnow.families.ink.tiles import InkTiles


class InkSource(Protocol):
    """Tiles as a pure function of their keys, in any process."""

    def __len__(self) -> int: ...

    def tiles(self, keys: Sequence[SampleKey]) -> InkTiles:
        """All of the same size; there may be no keys."""
        ...

    def image_ids(self, keys: Sequence[SampleKey]) -> list[int | str]: ...


class InkSamples(Dataset[InkBatch]):
    """A loader asks for all keys of a batch at once, and tiles cost least together."""

    def __init__(self, source: InkSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, key: SampleKey) -> InkBatch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[SampleKey]) -> InkBatch:
        return self._source.tiles(keys).batch(self._source.image_ids(keys))


class InkData:
    """Obeys ``protocols.Data``: train and validation batches of tiles. Its classes are the kinds of key points."""

    classes: Sequence[str] = KEY_POINT_KINDS

    def __init__(
        self, train: InkSource, val: InkSource, image_size: int, loading: LoadingSettings, fingerprint: str
    ) -> None:
        self.image_size = image_size
        self.fingerprint = fingerprint
        self._batch_size = loading.batch_size
        self._val, self._num_val = InkSamples(val), len(val)
        self._splits = LoadedSplits(
            InkSamples(train), len(train), self._val, len(val), _as_it_is, loading, patience_seconds=0
        )
        self.num_train_samples = len(train)

    def num_train_batches(self, start_sample: int = 0) -> int:
        return self._splits.num_train_batches(start_sample)

    def train_batches(self, epoch: int, image_size: int, start_sample: int = 0) -> Iterator[InkBatch]:
        return self._splits.train_batches(epoch, image_size, start_sample)

    def num_val_batches(self) -> int:
        return self._splits.num_val_batches()

    def val_batches(self, image_size: int) -> Iterator[InkBatch]:
        return self._splits.val_batches(image_size)

    def smallest_batch(self, start_sample: int = 0) -> int:
        return self._splits.smallest_batch(start_sample)

    def smallest_share(self, start_sample: int = 0) -> int:
        return self._splits.smallest_share(start_sample)

    def preview(self, count: int, image_size: int) -> Iterator[InkBatch]:
        """The first ``count`` validation tiles in batches of the usual size, made in this process."""
        keys = [SampleKey(0, index, image_size) for index in range(min(count, self._num_val))]
        for start in range(0, len(keys), self._batch_size):
            yield self._val.__getitems__(keys[start : start + self._batch_size])


def _as_it_is(batch: InkBatch) -> InkBatch:
    return batch
