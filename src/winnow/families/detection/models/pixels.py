"""Normalisation of uint8 batches to what networks trained on ImageNet expect."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelNormalizer(nn.Module):
    """(B, 3, H, W) uint8 to float32 with ImageNet's mean and deviation, zero on padding; (B, H, W) is True on image.

    Holds no entry in the state dict, so that torchvision's weights fit around it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor, pixel_mask: Tensor) -> Tensor:
        # One tensor throughout: on a CPU, fresh memory costs more than the arithmetic.
        pixels = images.to(torch.float32, copy=True)
        return pixels.sub_(self.mean).div_(self.std).mul_(pixel_mask[:, None])
