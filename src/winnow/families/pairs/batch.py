"""What pairs look like on their way from the data set to a task: detection's batch with a fourth channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from winnow.families.detection.batch import DetectionBatch, Detections

MODALITIES = ("visible", "infrared")
CHANNELS = (slice(0, 3), slice(3, 4))
"""Where each modality's channels are: R, G, B, then infrared."""
ABSENT_PIXEL = (124, 116, 104, 114)
"""What stands in the channels of a modality that is absent: ImageNet's mean colour, and for infrared its mean grey."""


def _none_present() -> Tensor:
    return torch.empty((0, 2), dtype=torch.bool)


@dataclass(frozen=True)
class PairBatch(DetectionBatch):
    """``images`` (B, 4, H, W) uint8 are R, G, B and infrared; ``present`` (B, 2) bool says which of visible and infrared are
    there, the channels of the others hold ``ABSENT_PIXEL``. ``seen_in`` holds per image (N, 2) bool, aligned with its target's
    ``boxes``: which modality shows the object; None where nobody knows, as one annotation serves both. ``seeds``, one per
    image, are a function of (seed, epoch, index) for what a task draws of it."""

    present: Tensor = field(default_factory=_none_present)
    seen_in: Sequence[Tensor] | None = None
    seeds: tuple[int, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        # As with targets: many small tensors from a worker process would cost more than the images.
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init}
        values["seen_in"] = None if self.seen_in is None else [seen.numpy() for seen in self.seen_in]
        return _batch_from_arrays, (values,)

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.preserve_format) -> Self:
        """Move what the model reads, as detection's batch does."""
        moved = super().to(device, memory_format)
        if self.present.device == device:
            return moved
        seen_in = None if self.seen_in is None else [seen.to(device, non_blocking=True) for seen in self.seen_in]
        return replace(moved, present=self.present.to(device, non_blocking=True), seen_in=seen_in)

    def pin_memory(self) -> Self:
        seen_in = None if self.seen_in is None else [seen.pin_memory() for seen in self.seen_in]
        return replace(super().pin_memory(), present=self.present.pin_memory(), seen_in=seen_in)


class AlignedDetections(list[Detections]):
    """The detections of each pair; ``beside_chance`` (B, 3) says of each how many objects both of its images show, their
    contrastive loss, and what that is by chance, on the CPU."""

    def __init__(self, detections: Iterable[Detections], beside_chance: Tensor) -> None:
        super().__init__(detections)
        self.beside_chance = beside_chance


def _batch_from_arrays(values: dict[str, Any]) -> PairBatch:
    seen_in: list[np.ndarray] | None = values["seen_in"]
    values["seen_in"] = None if seen_in is None else [torch.from_numpy(seen) for seen in seen_in]
    return PairBatch(**values)
