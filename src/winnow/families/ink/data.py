"""Ink data sets as the engine sees them: tiles behind loaders, the same for every ``data=ink_…``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch.utils.data import Dataset

from winnow.data.plan import LoadingSettings, SampleKey
from winnow.data.splits import DataFacts, SplitData
from winnow.families.ink.batch import KEY_POINT_KINDS, InkBatch
from winnow.families.ink.tiles import InkTiles


class InkSource(Protocol):
    """Tiles as a pure function of their keys, in any process."""

    def __len__(self) -> int: ...

    def tiles(self, keys: Sequence[SampleKey]) -> InkTiles:
        """Return tiles, all of the same size; there may be no keys."""
        ...

    def image_ids(self, keys: Sequence[SampleKey]) -> list[int | str]: ...


class InkSamples(Dataset[InkBatch]):
    """A loader asks for all keys of a batch at once, and tiles cost least together."""

    def __init__(self, source: InkSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def image_id(self, place: int) -> int | str:
        return self._source.image_ids([SampleKey(0, place, 0)])[0]

    def __getitem__(self, key: SampleKey) -> InkBatch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[SampleKey]) -> InkBatch:
        return self._source.tiles(keys).batch(self._source.image_ids(keys))


def ink_data(
    train: InkSource, val: InkSource, image_size: int, loading: LoadingSettings, fingerprint: str
) -> SplitData:
    """Return batches of tiles; their classes are the kinds of key points."""
    facts = DataFacts(KEY_POINT_KINDS, fingerprint, image_size)
    return SplitData(facts, InkSamples(train), InkSamples(val), _as_it_is, loading)


def _as_it_is(batch: InkBatch) -> InkBatch:
    return batch
