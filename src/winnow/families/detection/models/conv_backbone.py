"""A small residual backbone with GroupNorm, made to learn from random weights and small batches on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from winnow.families.convolution import normalization, normalized_convolution


def convolution(before: int, after: int, stride: int) -> nn.Sequential:
    """Build a 3×3 convolution, normalised, with ReLU."""
    return nn.Sequential(*normalized_convolution(before, after, stride), nn.ReLU(inplace=True))


class ConvBackbone(nn.Module):
    """Five stages of strides 2, 4, 8, 16, 32, of ``channels`` (multiples of 8) each; gives the last three's maps."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = convolution(3, channels[0], stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after, stride=2), ResidualBlock(after))
            for before, after in pairwise(channels)
        )

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) normalised images to features of ⌈H/8⌉, ⌈H/16⌉ and ⌈H/32⌉ rows."""
        features = self.stem(pixel_values)
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps[-3:]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity; the second starts at zero, so that depth does no harm at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels, stride=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = normalization(channels)
        self.activation = nn.ReLU(inplace=True)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(features + self.norm(self.second(self.first(features))))
