"""What detection samples look like on their way from the data set to a task: one target per image, one batch per forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """The truth about one image.

    ``boxes`` (N, 4) float32 xyxy in pixels of the *resized* image, clipped to it, none degenerate, no crowds; ``labels``
    (N,) int64 in 0…n−1. The ``original_…`` fields hold every annotation that evaluation needs, in pixels of the image as it
    lies on disk: ``original_boxes`` (M, 4) xyxy, ``original_labels`` (M,), ``original_areas`` (M,) the annotation's area in
    px², ``original_crowd`` (M,) bool. ``original_size`` and ``size`` are (height, width); ``size`` excludes padding.
    """

    image_id: int | str
    boxes: Tensor
    labels: Tensor
    size: tuple[int, int]
    original_size: tuple[int, int]
    original_boxes: Tensor
    original_labels: Tensor
    original_areas: Tensor
    original_crowd: Tensor

    def __reduce__(self) -> tuple[Any, ...]:
        # A tensor on its way from a worker process takes a piece of shared memory, an array goes along with the rest: six small
        # tensors per image cost more than the image.
        return _target_from_arrays, tuple(_array_or_value(getattr(self, field.name)) for field in fields(self))

    @property
    def scale(self) -> tuple[float, float]:
        """Return (x, y) factors from resized to original pixels; only meaningful where nothing was cropped, as in
        evaluation.
        """
        return self.original_size[1] / self.size[1], self.original_size[0] / self.size[0]


def _array_or_value(value: Any) -> Any:
    return value.numpy() if isinstance(value, Tensor) else value


def _target_from_arrays(*values: Any) -> Target:
    restored: list[Any] = [torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in values]
    return Target(*restored)


@dataclass(frozen=True)
class DetectionBatch:
    """``images`` (B, C, H, W) uint8, channels_last, zero-padded at the right and bottom; C is 3, RGB, but where a family
    has more; ``pixel_mask`` (B, H, W) bool, True on image and False on padding; ``targets`` one per image. ``problems`` says
    for each image that could not be read why; another sample of the batch stands in its place. ``memo`` is where a task keeps
    what it worked out from the targets."""

    images: Tensor
    pixel_mask: Tensor
    targets: Sequence[Target]
    problems: tuple[str, ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def num_samples(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape[0], self.images.shape[2], self.images.shape[3]

    @property
    def image_ids(self) -> list[int | str]:
        return [target.image_id for target in self.targets]

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.preserve_format) -> Self:
        """Move what the model reads; the ``original_…`` fields stay on the CPU, where evaluation wants them."""
        images = self.images.to(device, non_blocking=True, memory_format=memory_format)
        if self.images.device == device:
            return self if images is self.images else replace(self, images=images)
        targets = [
            replace(t, boxes=t.boxes.to(device, non_blocking=True), labels=t.labels.to(device, non_blocking=True))
            for t in self.targets
        ]
        return replace(
            self,
            images=images,
            pixel_mask=self.pixel_mask.to(device, non_blocking=True),
            targets=targets,
            memo={},
        )

    def pin_memory(self) -> Self:
        targets = [replace(t, boxes=t.boxes.pin_memory(), labels=t.labels.pin_memory()) for t in self.targets]
        return replace(self, images=self.images.pin_memory(), pixel_mask=self.pixel_mask.pin_memory(), targets=targets)


@dataclass(frozen=True)
class Detections:
    """Predictions for one image: ``boxes`` (N, 4) float32 xyxy in pixels of the *original* image, ``scores`` (N,) in [0, 1]
    in descending order, ``labels`` (N,) int64 in 0…n−1. All on the CPU."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"boxes, scores and labels must have one entry per detection, got {lengths}")
