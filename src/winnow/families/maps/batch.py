"""What map samples look like on their way from the data set to a task: six images per sample, their calibration, true lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from winnow.families.maps.lines import MapLines


@dataclass(frozen=True)
class MapTarget:
    """The truth about one sample, in the map's frame, in metres.

    ``lines`` are N lines with all their points, for the metric and pictures, on the CPU; of the same lines ``points`` (N, P, 2)
    float32 at equal steps, ``labels`` (N,) int64, and ``closed`` (N,) bool, true for rings. ``city`` is where the sample lies.
    """

    image_id: int | str
    city: str
    lines: MapLines
    points: Tensor
    labels: Tensor
    closed: Tensor

    def __reduce__(self) -> tuple[Any, ...]:
        # Arrays go along with the rest from a worker process; each tensor would take a piece of shared memory of its own.
        arrays = [value.numpy() for value in (self.points, self.labels, self.closed)]
        return _target_from_arrays, (self.image_id, self.city, self.lines, *arrays)


def _target_from_arrays(image_id: int | str, city: str, lines: MapLines, *arrays: np.ndarray) -> MapTarget:
    return MapTarget(image_id, city, lines, *(torch.from_numpy(array) for array in arrays))


@dataclass(frozen=True)
class MapBatch:
    """``images`` (B·6, 3, H, W) uint8, channels_last, the six of a sample beside each other in the order of ``frame.CAMERAS``.

    Per sample and camera: ``frame_to_camera`` (B, 6, 4, 4) float32 from the map's frame to the camera (x right, y down, z ahead)
    and ``intrinsics`` (B, 6, 3, 3) float32 to pixels of the images as they are here. ``ground`` (B, 3) float32 is (a, b, c) of
    the ground z = a x + b y + c. ``targets`` one per sample. ``problems`` says for each sample that could not be read why;
    another one of the batch stands in its place. ``calibration_ids`` are, per sample, equal where calibration and ground are, so
    that what follows from these alone need not be worked out again; none where nobody says. ``memo`` is where a task keeps what
    it worked out from the rest.
    """

    images: Tensor
    frame_to_camera: Tensor
    intrinsics: Tensor
    ground: Tensor
    targets: Sequence[MapTarget]
    problems: tuple[str, ...] = ()
    calibration_ids: tuple[str, ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def num_samples(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape[0], self.images.shape[2], self.images.shape[3]

    @property
    def image_ids(self) -> list[int | str]:
        """Return one id per sample."""
        return [target.image_id for target in self.targets]

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.preserve_format) -> Self:
        """Move what a model reads; ``lines`` stay on the CPU, where evaluation wants them."""
        images = self.images.to(device, non_blocking=True, memory_format=memory_format)
        if self.images.device == device:
            return self if images is self.images else replace(self, images=images)
        return self._each(lambda tensor: tensor.to(device, non_blocking=True), images)

    def pin_memory(self) -> Self:
        return self._each(lambda tensor: tensor.pin_memory(), self.images.pin_memory())

    def _each(self, change: Any, images: Tensor) -> Self:
        targets = [
            replace(target, points=change(target.points), labels=change(target.labels), closed=change(target.closed))
            for target in self.targets
        ]
        calibration = {name: change(getattr(self, name)) for name in ("frame_to_camera", "intrinsics", "ground")}
        return replace(self, images=images, targets=targets, memo={}, **calibration)
