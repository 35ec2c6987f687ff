"""Which samples a run reads, in which order and in which batches: a pure function of (seed, epoch, index) and the rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field
from torch.utils.data import Sampler

from winnow.data.balance import draw_epoch, epoch_length
from winnow.settings import Settings


class LoadingSettings(Settings):
    """The part of the ``training`` group that decides which samples are read, and how; ``resize_schedule`` holds (first epoch,
    image size), None: all at the data's own size. ``val_split`` is what a model in use is evaluated on; data that can give
    another split than ``val`` says which it gave as its own ``val_split``."""

    batch_size: int = Field(gt=0)
    num_workers: int = Field(ge=0)
    drop_last: bool
    seed: int
    subset_size: int | None
    subset_seed: int
    subset_stratified: bool = False
    class_balance: Literal["none", "repeat_factor"] = "none"
    balance_threshold: float = Field(default=0.001, gt=0, le=1)
    overfit: int | None
    resize_schedule: list[tuple[int, int]] | None = None
    val_split: str = "val"
    rank: int = Field(default=0, ge=0)
    ranks: int = Field(default=1, gt=0)


class SampleKey(NamedTuple):
    """All that a sample depends on besides the data set and the seed; ``repeat`` counts from 0 how often it came in the epoch
    before."""

    epoch: int
    sample: int
    image_size: int
    repeat: int = 0


class BatchPlan(Sampler[list[SampleKey]]):
    """The batches of whatever epoch it is set to; a loader with living workers asks it anew for each epoch.

    All ``ranks`` cut the same order into the same batches of ``batch_size`` × ``ranks`` and take a contiguous share of each;
    a share of the epoch's last, incomplete batch may be smaller than another's, or empty. ``factors`` say how often each sample
    comes in a shuffled epoch; None: once.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        shuffle_seed: int | None,
        drop_last: bool,
        rank: int = 0,
        ranks: int = 1,
        factors: np.ndarray | None = None,
    ) -> None:
        self._factors = factors if shuffle_seed is not None else None
        self.num_samples = num_samples if self._factors is None else epoch_length(self._factors)
        self.batch_size = batch_size * ranks
        self._rank, self._ranks = rank, ranks
        self._shuffle_seed = shuffle_seed
        self.drop_last = drop_last
        self._epoch, self._image_size, self._start_sample = 0, 0, 0

    def set(self, epoch: int, image_size: int, start_sample: int) -> None:
        self._epoch, self._image_size, self._start_sample = epoch, image_size, start_sample

    def num_batches(self, start_sample: int = 0) -> int:
        """Return the number of batches in what is left of an epoch after its first ``start_sample`` samples."""
        left = self.num_samples - start_sample
        return (left if self.drop_last else left + self.batch_size - 1) // self.batch_size

    def __len__(self) -> int:
        return self.num_batches(self._start_sample)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        samples, repeats = (column[self._start_sample :] for column in self._order())
        for number in range(len(self)):
            start = number * self.batch_size
            size = min(self.batch_size, len(samples) - start)
            share = slice(start + self._bound(size, self._rank), start + self._bound(size, self._rank + 1))
            yield [
                SampleKey(self._epoch, sample, self._image_size, repeat)
                for sample, repeat in zip(samples[share].tolist(), repeats[share].tolist(), strict=True)
            ]

    def _bound(self, count: int, rank: int) -> int:
        """Return where the share of ``rank`` begins, the larger shares first."""
        return -(-count * rank // self._ranks)

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the epoch's samples in order, and for each how often it came before."""
        once = np.zeros(self.num_samples, dtype=np.int64)
        if self._shuffle_seed is None:
            return np.arange(self.num_samples), once
        rng = np.random.default_rng([self._shuffle_seed, self._epoch])
        return (rng.permutation(self.num_samples), once) if self._factors is None else draw_epoch(self._factors, rng)


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """Return the seed of a sample, for torch's generator."""
    again = [0, repeat] if repeat else []
    return int(np.random.SeedSequence([seed, epoch, index, *again]).generate_state(1, np.uint64)[0] >> 1)
