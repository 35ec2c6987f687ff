"""Pairs and their batches as pure functions of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from winnow.data.image import read_grey, read_image
from winnow.data.pixel_rule import PLAIN, PixelRule
from winnow.data.plan import SampleKey, sample_seed
from winnow.data.unreadable import Unreadable
from winnow.families.detection.batch import Target
from winnow.families.detection.samples import Collate, read_or_say_why, seeded, target_of
from winnow.families.detection.transforms import resize
from winnow.families.pairs.batch import ABSENT_PIXEL, CHANNELS, MODALITIES, PairBatch
from winnow.families.pairs.records import PairRecord
from winnow.families.pairs.transforms import PairAugmentation


class PairSample(NamedTuple):
    """One pair (4, H, W) uint8; ``present`` says which of visible and infrared are in it, ``seen_in`` (N, 2) bool which of
    them shows each box of the target, ``seed`` is for what a task draws."""

    image: Tensor
    target: Target
    present: tuple[bool, bool]
    seen_in: Tensor | None
    seed: int


class PairSamples(Dataset[PairSample | Unreadable]):
    """Reads, augments and resizes one pair per ``SampleKey``; without ``augmentation`` it only resizes.

    Only ``modalities`` are read. ``dropout`` gives, by modality, the probability that it is left out of a sample; never are both.
    ``with_truth`` adds the annotations in original coordinates that evaluation needs. Pixels are taken by ``rule``.
    """

    def __init__(
        self,
        records: Sequence[PairRecord],
        augmentation: PairAugmentation | None,
        square: bool,
        seed: int,
        with_truth: bool,
        modalities: Collection[str] = MODALITIES,
        dropout: Mapping[str, float] | None = None,
        rule: PixelRule = PLAIN,
    ) -> None:
        self._records = records
        self._rule = rule
        self._augmentation = augmentation
        self._square = square
        self._seed = seed
        self._with_truth = with_truth
        self._used = tuple(modality in modalities for modality in MODALITIES)
        self._dropout = tuple((dropout or {}).get(modality, 0.0) for modality in MODALITIES)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: SampleKey) -> PairSample | Unreadable:
        record = self._records[key.sample]
        present = self._present(record, key)
        paths = [path for path, is_there in zip(record.paths, present, strict=True) if is_there]
        image = read_or_say_why(record, paths, lambda: read_pair(record, present, self._rule))
        if isinstance(image, Unreadable):
            return image
        wanted = ~record.crowd
        boxes, kept = torch.from_numpy(record.boxes[wanted]), torch.arange(int(wanted.sum()))
        if self._augmentation is None:
            image, boxes = resize(image, boxes, key.image_size, self._square)
        else:
            with seeded(sample_seed(self._seed, key.epoch, key.sample, key.repeat)):
                image, boxes, kept = self._augmentation(image, boxes, kept, key.image_size, self._square)
        labels = torch.from_numpy(record.labels[wanted])[kept]
        seen_in = None if record.seen_in is None else torch.from_numpy(record.seen_in[wanted])[kept]
        target = target_of(record, image, boxes, labels, self._with_truth)
        seed = sample_seed(self._seed, key.epoch, key.sample, key.repeat)
        return PairSample(with_absent(image, present), target, present, seen_in, seed)

    def image_id(self, place: int) -> int | str:
        return self._records[place].image_id

    def _present(self, record: PairRecord, key: SampleKey) -> tuple[bool, bool]:
        """Return which of visible and infrared the sample has; one of those that it could have is always left."""
        visible, infrared = (exists and is_used for exists, is_used in zip(record.exists, self._used, strict=True))
        if visible and infrared and any(self._dropout):
            again = [key.repeat] if key.repeat else []
            chance = np.random.default_rng([self._seed, key.epoch, key.sample, 1, *again]).random()
            visible = chance >= self._dropout[0]
            infrared = not self._dropout[0] <= chance < sum(self._dropout)
        return bool(visible), bool(infrared)


class PairCollate(Collate):
    """Makes a ``PairBatch`` of samples, as detection's does of images."""

    def __init__(self, multiple: int) -> None:
        super().__init__(multiple, channels=len(ABSENT_PIXEL))

    def batch(self, samples: Sequence[Any], images: Tensor, pixel_mask: Tensor, problems: tuple[str, ...]) -> PairBatch:
        seen_in = [sample.seen_in for sample in samples]
        return PairBatch(
            images,
            pixel_mask,
            [sample.target for sample in samples],
            problems,
            present=torch.tensor([sample.present for sample in samples], dtype=torch.bool).reshape(-1, 2),
            seen_in=None if any(seen is None for seen in seen_in) else seen_in,
            seeds=tuple(sample.seed for sample in samples),
        )


def read_pair(record: PairRecord, present: tuple[bool, bool], rule: PixelRule = PLAIN) -> Tensor:
    """Return (4, H, W) uint8, a view on channels-last memory: R, G, B and the infrared image's brightness, of those that are
    ``present``; the channels of the other are 0. Raises DataError as ``read_image`` does."""
    # Both are read before there is memory for them: an annotated size may be anything.
    size = (record.width, record.height)
    visible = read_image(record.path, *size, rule).permute(1, 2, 0).numpy() if present[0] else 0
    infrared = read_grey(record.infrared, *size, rule) if present[1] else 0
    pixels = np.empty((record.height, record.width, len(ABSENT_PIXEL)), dtype=np.uint8)
    pixels[..., CHANNELS[0]], pixels[..., 3] = visible, infrared
    return torch.from_numpy(pixels).permute(2, 0, 1)


def with_absent(image: Tensor, present: tuple[bool, bool]) -> Tensor:
    """Return ``image`` (4, H, W) with ``ABSENT_PIXEL`` in the channels of what is not ``present``."""
    if all(present):
        return image
    image = image.clone()
    for channels, is_there in zip(CHANNELS, present, strict=True):
        if not is_there:
            image[channels] = torch.tensor(ABSENT_PIXEL[channels], dtype=torch.uint8)[:, None, None]
    return image
