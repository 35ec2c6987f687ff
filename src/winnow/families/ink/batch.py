"""What ink samples look like on their way from the data set to a task: tiles of ink and, per pixel, the centre-line's labels.

Pixels and points share the convention of boxes: x to the right, y down, and the pixel in row i, column j covers
[j, j+1] × [i, i+1], so its centre is at (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

KEY_POINT_KINDS = ("end_point", "junction", "corner")


@dataclass(frozen=True)
class InkTarget:
    """The truth about B tiles of H×W px; every label but ``has_full_labels`` is 0 off the skeleton.

    ``skeleton`` (B, 1, H, W) float32, 1 on the centre-line, which is one pixel wide. On it: ``tangent`` (B, 2, H, W) float32
    (cos 2θ, sin 2θ) with θ the direction of the line, x to the right and y down, of unit norm; ``width`` (B, 1, H, W) float32
    the full width of the stroke in px; ``offset`` (B, 2, H, W) float32 (x, y) px in ±0.5 from the pixel's centre to the closest
    point of the curve; ``key_points`` (B, 3, H, W) float32 0/1 in the order of ``KEY_POINT_KINDS``. ``has_full_labels`` (B,)
    bool: where it is False, offset and corners are unknown, and width, end points and junctions are estimates from pixels
    (docs/ink.md).
    """

    skeleton: Tensor
    tangent: Tensor
    width: Tensor
    offset: Tensor
    key_points: Tensor
    has_full_labels: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same labels with ``change`` applied to every tensor."""
        return replace(self, **{field.name: change(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True)
class InkBatch:
    """``images`` (B, 1, H, W) float32 in [0, 1], ink 1 on 0; ``target`` the labels of all B; ``image_ids`` one per image.

    Nothing is hidden here: a model that learns from masked tiles hides blocks itself.
    """

    images: Tensor
    target: InkTarget
    image_ids: Sequence[int | str]

    @property
    def num_samples(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape[0], self.images.shape[2], self.images.shape[3]

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.preserve_format) -> Self:
        """Return the batch, itself if it is there already: with one channel all memory formats are the same."""
        if self.images.device == device:
            return self
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {"images": change(self.images), "target": self.target.each(change)}
        return replace(self, **changed)
