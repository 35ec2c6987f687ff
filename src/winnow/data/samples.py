"""Order, samples and batches as pure functions of (seed, epoch, index): a loader built here has no memory to lose."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from winnow.data.batch import DetectionBatch, Target
from winnow.data.coco import ImageRecord
from winnow.data.image import read_image
from winnow.data.transforms import Augmentation, resize
from winnow.errors import DataError

Sample = tuple[Tensor, Target]


class Unreadable(NamedTuple):
    """Stands for a sample whose image can't be read, an exception would end the worker process; ``gone_folder`` is its folder
    where that is gone as a whole."""

    problem: str
    gone_folder: str | None


class NothingReadable(NamedTuple):
    """Stands for a batch without a readable image."""

    problems: tuple[str, ...]


class FolderGone(NamedTuple):
    """Stands for a batch that was to be read from a folder that is gone."""

    folder: str


class SampleKey(NamedTuple):
    """All that a sample depends on besides the data set and the seed."""

    epoch: int
    sample: int
    image_size: int


class DetectionSamples(Dataset[Sample | Unreadable]):
    """Reads, augments and resizes one image per ``SampleKey``; without ``augmentation`` it only resizes.

    ``with_truth`` adds the annotations in original coordinates that evaluation needs.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        augmentation: Augmentation | None,
        square: bool,
        seed: int,
        with_truth: bool,
    ) -> None:
        self._records = records
        self._augmentation = augmentation
        self._square = square
        self._seed = seed
        self._with_truth = with_truth

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: SampleKey) -> Sample | Unreadable:
        record = self._records[key.sample]
        image = _read(record)
        if isinstance(image, Unreadable):
            return image
        wanted = ~record.crowd
        boxes, labels = torch.from_numpy(record.boxes[wanted]), torch.from_numpy(record.labels[wanted])
        if self._augmentation is None:
            image, boxes = resize(image, boxes, key.image_size, self._square)
        else:
            with _seeded(_sample_seed(self._seed, key.epoch, key.sample)):
                image, boxes, labels = self._augmentation(image, boxes, labels, key.image_size, self._square)
        truth = slice(None) if self._with_truth else slice(0)
        target = Target(
            image_id=record.image_id,
            boxes=boxes,
            labels=labels,
            size=(image.shape[1], image.shape[2]),
            original_size=(record.height, record.width),
            original_boxes=torch.from_numpy(record.boxes[truth]),
            original_labels=torch.from_numpy(record.labels[truth]),
            original_areas=torch.from_numpy(record.areas[truth]),
            original_crowd=torch.from_numpy(record.crowd[truth]),
        )
        return image, target


class BatchPlan(Sampler[list[SampleKey]]):
    """The batches of whatever epoch it is set to; a loader with living workers asks it anew for each epoch.

    All ``ranks`` cut the same order into the same batches of ``batch_size`` × ``ranks`` and take a contiguous share of each;
    a share of the epoch's last, incomplete batch may be smaller than another's, or empty.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        shuffle_seed: int | None,
        drop_last: bool,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._num_samples = num_samples
        self.batch_size = batch_size * ranks
        self._rank, self._ranks = rank, ranks
        self._shuffle_seed = shuffle_seed
        self.drop_last = drop_last
        self._epoch, self._image_size, self._start_sample = 0, 0, 0

    def set(self, epoch: int, image_size: int, start_sample: int) -> None:
        self._epoch, self._image_size, self._start_sample = epoch, image_size, start_sample

    def num_batches(self, start_sample: int = 0) -> int:
        """Of what is left of an epoch after its first ``start_sample`` samples."""
        left = self._num_samples - start_sample
        return (left if self.drop_last else left + self.batch_size - 1) // self.batch_size

    def __len__(self) -> int:
        return self.num_batches(self._start_sample)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        left = self._order()[self._start_sample :]
        for number in range(len(self)):
            chosen = left[number * self.batch_size : (number + 1) * self.batch_size]
            share = chosen[self._bound(len(chosen), self._rank) : self._bound(len(chosen), self._rank + 1)]
            yield [SampleKey(self._epoch, int(index), self._image_size) for index in share]

    def _bound(self, count: int, rank: int) -> int:
        """Where the share of ``rank`` begins, the larger shares first."""
        return -(-count * rank // self._ranks)

    def _order(self) -> np.ndarray:
        if self._shuffle_seed is None:
            return np.arange(self._num_samples)
        return np.random.default_rng([self._shuffle_seed, self._epoch]).permutation(self._num_samples)


class Collate:
    """Pads the images of a batch at the right and bottom to one size, a multiple of ``multiple`` px.

    Unreadable samples are replaced by the readable ones of the batch in turn, so that its size, and with it the number of
    steps, stays. No sample at all, an empty share, is a batch without images.
    """

    def __init__(self, multiple: int) -> None:
        self._multiple = multiple

    def __call__(self, loaded: Sequence[Sample | Unreadable]) -> DetectionBatch | FolderGone | NothingReadable:
        if not loaded:
            return self._empty()
        problems = tuple(sample.problem for sample in loaded if isinstance(sample, Unreadable))
        readable = [sample for sample in loaded if not isinstance(sample, Unreadable)]
        gone = [sample.gone_folder for sample in loaded if isinstance(sample, Unreadable) and sample.gone_folder]
        if gone:
            return FolderGone(gone[0])
        if not readable:
            return NothingReadable(problems)
        spare = itertools.cycle(readable)
        samples = [next(spare) if isinstance(sample, Unreadable) else sample for sample in loaded]
        height = self._round_up(max(image.shape[1] for image, _ in samples))
        width = self._round_up(max(image.shape[2] for image, _ in samples))
        images = _new_tensor((len(samples), height, width, 3), torch.uint8)
        pixel_mask = _new_tensor((len(samples), height, width), torch.bool)
        for row, (image, _) in enumerate(samples):
            bottom, right = image.shape[1:]
            images[row, :bottom, :right] = image.permute(1, 2, 0)
            images[row, bottom:], images[row, :bottom, right:] = 0, 0
            pixel_mask[row, :bottom, :right] = True
            pixel_mask[row, bottom:], pixel_mask[row, :bottom, right:] = False, False
        return DetectionBatch(images.permute(0, 3, 1, 2), pixel_mask, [target for _, target in samples], problems)

    def _empty(self) -> DetectionBatch:
        images = torch.empty((0, self._multiple, self._multiple, 3), dtype=torch.uint8)
        return DetectionBatch(images.permute(0, 3, 1, 2), images[..., 0].bool(), [])

    def _round_up(self, side: int) -> int:
        return -(-side // self._multiple) * self._multiple


def is_gone(folder: Path) -> bool:
    """Whether a folder can't be listed or is empty, as the mount point of a share that is away."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _read(record: ImageRecord) -> Tensor | Unreadable:
    for is_second_try in (False, True):
        try:
            return read_image(record.path, record.width, record.height)
        except DataError as error:
            if is_gone(record.path.parent):
                return Unreadable(str(error), str(record.path.parent))
            # Once more, for the folder may have come back in between.
            if is_second_try:
                return Unreadable(f"image id {record.image_id}: {error}", None)
    raise AssertionError("both tries return")


def _new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised; in a worker process right in shared memory, so that handing the batch over copies nothing."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty((0,), dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's global CPU generator starts from ``seed`` inside, and goes on as before outside.

    ``torch.manual_seed`` would also queue the seed for GPUs that are not there yet: 0.6 ms and a line of memory per sample.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


def _sample_seed(seed: int, epoch: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0] >> 1)
