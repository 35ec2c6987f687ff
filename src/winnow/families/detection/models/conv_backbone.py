"""A small residual backbone with GroupNorm, made to learn from random weights and small batches on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

CHANNELS_PER_GROUP = 8


class ConvBackbone(nn.Module):
    """Five stages of strides 2, 4, 8, 16, 32, of ``channels`` (multiples of 8) each; gives the last three's maps."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = _convolution(3, channels[0], stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(before, after, stride=2), ResidualBlock(after))
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
        self.first = _convolution(channels, channels, stride=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)
        self.activation = nn.ReLU(inplace=True)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(features + self.norm(self.second(self.first(features))))


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    norm = nn.GroupNorm(after // CHANNELS_PER_GROUP, after)
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True))
