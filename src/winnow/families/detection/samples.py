"""Detection samples and their batches as pure functions of (seed, epoch, index): nothing here has a memory to lose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from winnow.data.image import read_image
from winnow.data.loader import FolderGone, NothingReadable, is_gone
from winnow.data.pixel_rule import PLAIN, PixelRule
from winnow.data.plan import SampleKey, sample_seed
from winnow.data.shared_memory import new_tensor
from winnow.data.unreadable import Replaced, Unreadable, replace_unreadable
from winnow.errors import DataError
from winnow.families.detection.batch import DetectionBatch, Target
from winnow.families.detection.formats.records import ImageRecord
from winnow.families.detection.transforms import Augmentation, resize


class Sample(NamedTuple):
    """One image (C, H, W) uint8 and the truth about it."""

    image: Tensor
    target: Target


class DetectionSamples(Dataset[Sample | Unreadable]):
    """Reads, augments and resizes one image per ``SampleKey``; without ``augmentation`` it only resizes.

    ``with_truth`` adds the annotations in original coordinates that evaluation needs. Pixels are taken by ``rule``.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        augmentation: Augmentation | None,
        square: bool,
        seed: int,
        with_truth: bool,
        rule: PixelRule = PLAIN,
    ) -> None:
        self._records = records
        self._rule = rule
        self._augmentation = augmentation
        self._square = square
        self._seed = seed
        self._with_truth = with_truth

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: SampleKey) -> Sample | Unreadable:
        record = self._records[key.sample]
        image = self.pixels(record)
        if isinstance(image, Unreadable):
            return image
        if self._augmentation is None:
            return self.resized(record, image, key.image_size)
        boxes, labels = _wanted(record)
        with seeded(sample_seed(self._seed, key.epoch, key.sample, key.repeat)):
            image, boxes, labels = self._augmentation(image, boxes, labels, key.image_size, self._square)
        return Sample(image, target_of(record, image, boxes, labels, self._with_truth))

    def image_id(self, place: int) -> int | str:
        return self._records[place].image_id

    def pixels(self, record: ImageRecord) -> Tensor | Unreadable:
        """Return the image of ``record``, (3, H, W) uint8, as it lies on disk, taken by the rule for pixels."""
        size = (record.width, record.height)
        return read_or_say_why(record, [record.path], lambda: read_image(record.path, *size, self._rule))

    def resized(self, record: ImageRecord, image: Tensor, image_size: int) -> Sample:
        """Return the sample of ``image``, which is that of ``record``, without augmentation."""
        boxes, labels = _wanted(record)
        image, boxes = resize(image, boxes, image_size, self._square)
        return Sample(image, target_of(record, image, boxes, labels, self._with_truth))


def _wanted(record: ImageRecord) -> tuple[Tensor, Tensor]:
    """Return boxes and labels of what is to be learnt."""
    wanted = ~record.crowd
    return torch.from_numpy(record.boxes[wanted]), torch.from_numpy(record.labels[wanted])


def target_of(record: ImageRecord, image: Tensor, boxes: Tensor, labels: Tensor, with_truth: bool) -> Target:
    """Return what is true of ``image`` (C, H, W), made of that of ``record``, where ``boxes`` and ``labels`` are in it."""
    truth = slice(None) if with_truth else slice(0)
    return Target(
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


class Collate:
    """Pads the images of a batch, of ``channels`` each, at the right and bottom to one size, a multiple of ``multiple`` px.

    Unreadable samples are replaced (``replace_unreadable``). No sample at all, an empty share, is a batch without images.
    """

    def __init__(self, multiple: int, channels: int = 3) -> None:
        self._multiple = multiple
        self._channels = channels

    def __call__(self, loaded: Sequence[Any]) -> DetectionBatch | FolderGone | NothingReadable:
        replaced = replace_unreadable(loaded)
        if not isinstance(replaced, Replaced):
            return replaced
        samples, problems = replaced
        return self.batch(samples, *self._padded([sample.image for sample in samples]), problems)

    def batch(
        self, samples: Sequence[Any], images: Tensor, pixel_mask: Tensor, problems: tuple[str, ...]
    ) -> DetectionBatch:
        """Return the batch of ``samples``, whose padded ``images`` (B, C, H, W) and ``pixel_mask`` (B, H, W) are given."""
        return DetectionBatch(images, pixel_mask, [sample.target for sample in samples], problems)

    def _padded(self, samples: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        height = self._round_up(max((image.shape[1] for image in samples), default=1))
        width = self._round_up(max((image.shape[2] for image in samples), default=1))
        images = new_tensor((len(samples), height, width, self._channels), torch.uint8)
        pixel_mask = new_tensor((len(samples), height, width), torch.bool)
        for row, image in enumerate(samples):
            bottom, right = image.shape[1:]
            images[row, :bottom, :right] = image.permute(1, 2, 0)
            images[row, bottom:], images[row, :bottom, right:] = 0, 0
            pixel_mask[row, :bottom, :right] = True
            pixel_mask[row, bottom:], pixel_mask[row, :bottom, right:] = False, False
        return images.permute(0, 3, 1, 2), pixel_mask

    def _round_up(self, side: int) -> int:
        return -(-side // self._multiple) * self._multiple


def read_or_say_why(record: ImageRecord, paths: Sequence[Path], read: Callable[[], Tensor]) -> Tensor | Unreadable:
    """Return what ``read`` gives of the files at ``paths``, or why it can't be read; it is tried twice."""
    for is_second_try in (False, True):
        try:
            return read()
        except DataError as error:
            gone = [str(path.parent) for path in paths if is_gone(path.parent)]
            if gone:
                return Unreadable(str(error), gone[0])
            # Once more, for the folder may have come back in between.
            if is_second_try:
                return Unreadable(f"image id {record.image_id}: {error}", None)
    raise AssertionError("both tries return")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start torch's global CPU generator from ``seed`` inside; outside it goes on as before.

    ``torch.manual_seed`` would also queue the seed for GPUs that are not there yet: 0.6 ms and a line of memory per
    sample.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
