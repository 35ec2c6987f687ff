"""Map samples and their batches as pure functions of (seed, epoch, index): read or rendered, augmented, put together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.utils.data import Dataset

from winnow.data.loader import FolderGone, NothingReadable
from winnow.data.plan import SampleKey
from winnow.data.shared_memory import new_tensor
from winnow.data.unreadable import Replaced, Unreadable, replace_unreadable
from winnow.families.maps.batch import MapBatch, MapTarget
from winnow.families.maps.frame import MIRROR, MIRRORED_CAMERAS, NUM_CAMERAS, Array
from winnow.families.maps.lines import MapLines
from winnow.settings import Settings

SIZE_MULTIPLE = 16
"""Widths and heights of images are multiples of it."""
# Apart from other numbers that are drawn from the same seed.
_AUGMENTATION = 1


class RawSample(NamedTuple):
    """One sample as a source gives it: ``images`` (6, H, W, 3) uint8, ``intrinsics`` (6, 3, 3) to their pixels,
    ``frame_to_camera`` (6, 4, 4), ``ground`` (3,), see ``MapBatch``."""

    image_id: int | str
    city: str
    images: NDArray[np.uint8]
    frame_to_camera: Array
    intrinsics: Array
    ground: Array
    lines: MapLines


class MapSource(Protocol):
    """Samples by their place, in any process."""

    def __len__(self) -> int: ...

    def read(self, place: int, epoch: int, image_size: int) -> RawSample | Unreadable: ...

    def image_id(self, place: int) -> int | str:
        """Return the id of a sample of the validation set, which is not read for it."""
        ...

    def aspect(self) -> float:
        """Return the width of images over their height."""
        ...


class AugmentationSettings(Settings):
    """How a training sample is changed."""

    flip: float = Field(ge=0, le=1, strict=False)
    brightness: float = Field(ge=0, lt=1, strict=False)
    noise: float = Field(ge=0, le=64, strict=False)


class MapSamples(Dataset[RawSample | Unreadable]):
    """Reads one sample per ``SampleKey``, and augments it as a function of (seed, epoch, index) where there is an
    ``augmentation``."""

    def __init__(self, source: MapSource, augmentation: AugmentationSettings | None, seed: int) -> None:
        self._source = source
        self._augmentation = augmentation
        self._seed = seed

    def __len__(self) -> int:
        return len(self._source)

    def image_id(self, place: int) -> int | str:
        return self._source.image_id(place)

    def __getitem__(self, key: SampleKey) -> RawSample | Unreadable:
        sample = self._source.read(key.sample, key.epoch, key.image_size)
        if self._augmentation is None or isinstance(sample, Unreadable):
            return sample
        return augmented(
            sample, self._augmentation, np.random.default_rng([self._seed, key.epoch, key.sample, _AUGMENTATION])
        )


def augmented(sample: RawSample, settings: AugmentationSettings, rng: np.random.Generator) -> RawSample:
    """Return a sample changed at random: mirrored, brighter or darker, with noise."""
    chance, gain, shift = rng.random(), *(settings.brightness * rng.uniform(-1, 1, 2))
    images = sample.images
    if settings.brightness:
        table = np.clip(np.arange(256) * (1 + gain) + 64 * shift, 0, 255).round().astype(np.uint8)
        images = table[images]
    if settings.noise:
        strength = np.float32(settings.noise * rng.random())
        noise = strength * rng.standard_normal(images.shape, dtype=np.float32)
        images = np.clip(images + noise, 0, 255).round().astype(np.uint8)
    sample = sample._replace(images=images)
    return flipped(sample) if chance < settings.flip else sample


def flipped(sample: RawSample) -> RawSample:
    """Return what the same cameras would see of the mirrored world: images, calibration and map mirrored together.

    Each camera takes the place of the one on the other side. Pixel x becomes W − x, x in the frame becomes −x.
    """
    order = list(MIRRORED_CAMERAS)
    width = sample.images.shape[2]
    intrinsics = sample.intrinsics[order].copy()
    intrinsics[:, 0, 2] = width - intrinsics[:, 0, 2]
    intrinsics[:, 0, 1] *= -1
    return sample._replace(
        images=np.ascontiguousarray(sample.images[order, :, ::-1]),
        frame_to_camera=MIRROR @ sample.frame_to_camera[order] @ MIRROR,
        intrinsics=intrinsics,
        ground=sample.ground * (-1, 1, 1),
        lines=sample.lines.mirrored(),
    )


def pixel_size(image_size: int, aspect: float) -> tuple[int, int]:
    """Return width and height in px of images of ``image_size`` px, the width: multiples of ``SIZE_MULTIPLE``."""
    width, height = (SIZE_MULTIPLE * max(1, round(side / SIZE_MULTIPLE)) for side in (image_size, image_size / aspect))
    return width, height


def scaled_intrinsics(intrinsics: Array, width: int, height: int, new_width: int, new_height: int) -> Array:
    """Return the (3, 3) intrinsics of an image that was resized."""
    return np.diag([new_width / width, new_height / height, 1.0]) @ intrinsics


class Collate:
    """Puts samples together; images of another size than the first's can't be.

    Unreadable samples are replaced (``replace_unreadable``). No sample at all, an empty share, is a batch without images.
    """

    def __init__(self, num_points: int) -> None:
        self._num_points = num_points

    def __call__(self, loaded: Sequence[RawSample | Unreadable]) -> MapBatch | FolderGone | NothingReadable:
        replaced = replace_unreadable(loaded)
        if not isinstance(replaced, Replaced):
            return replaced
        samples, problems = replaced
        height, width = samples[0].images.shape[1:3] if samples else (SIZE_MULTIPLE, SIZE_MULTIPLE)
        images = new_tensor((len(samples) * NUM_CAMERAS, height, width, 3), torch.uint8)
        for row, sample in enumerate(samples):
            images[row * NUM_CAMERAS : (row + 1) * NUM_CAMERAS] = torch.from_numpy(sample.images)
        return MapBatch(
            images.permute(0, 3, 1, 2),
            _stacked([sample.frame_to_camera for sample in samples], (NUM_CAMERAS, 4, 4)),
            _stacked([sample.intrinsics for sample in samples], (NUM_CAMERAS, 3, 3)),
            _stacked([sample.ground for sample in samples], (3,)),
            [self._target(sample) for sample in samples],
            problems,
            tuple(_calibration_id(sample) for sample in samples),
        )

    def _target(self, sample: RawSample) -> MapTarget:
        lines = sample.lines
        parts = lines.resampled(self._num_points), lines.labels, lines.closed
        return MapTarget(sample.image_id, sample.city, lines, *(torch.from_numpy(part) for part in parts))


def _calibration_id(sample: RawSample) -> str:
    parts = sample.frame_to_camera, sample.intrinsics, sample.ground
    return hashlib.sha256(b"".join(part.astype(np.float32).tobytes() for part in parts)).hexdigest()[:16]


def _stacked(arrays: Sequence[Array], shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.array(arrays, np.float32).reshape(-1, *shape))
