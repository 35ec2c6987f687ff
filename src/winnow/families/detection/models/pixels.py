"""Normalisation of uint8 batches to what networks trained on ImageNet expect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelNormalizer(nn.Module):
    """(B, C, H, W) uint8 to float32 with a ``mean`` and deviation per channel in [0, 1], ImageNet's of RGB unless
    others are given, zero on padding; (B, H, W) is True on image.

    Holds no entry in the state dict, so that torchvision's weights fit around it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor, pixel_mask: Tensor) -> Tensor:
        # One tensor throughout: on a CPU, fresh memory costs more than the arithmetic.
        pixels = images.to(torch.float32, copy=True)
        return pixels.sub_(self.mean).div_(self.std).mul_(pixel_mask[:, None])
