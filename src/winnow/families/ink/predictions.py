"""An ink task's predictions for a batch of tiles."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class InkPredictions:
    """``skeleton`` (B, 1, H, W) the probability of centre-line; ``tangent`` (B, 2, H, W) cos 2θ and sin 2θ, of unit length.
    Without full heads the others are None: ``width`` (B, 1, H, W) px, ``offset`` (B, 2, H, W) x and y in px, ``key_points``
    (B, 3, H, W) scores in [0, 1] in the order of ``KEY_POINT_KINDS``. All float32."""

    skeleton: Tensor
    tangent: Tensor
    width: Tensor | None = None
    offset: Tensor | None = None
    key_points: Tensor | None = None

    def to(self, device: torch.device) -> Self:
        maps = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in maps.items() if value is not None})
