"""A small backbone with a feature pyramid, made to learn from random weights and small batches on a CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from winnow.families.detection.models.conv_backbone import convolution

STRIDES = (4, 8, 16)


class TinyPyramid(nn.Module):
    """Stages of strides 2, 4, 8 and 16 with ``channels`` each (multiples of 8), normalised in groups; gives maps
    ``"0"``, ``"1"`` and ``"2"`` of strides 4, 8 and 16 with ``out_channels``."""

    def __init__(self, in_channels: int, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after, 2), convolution(after, after, 1))
            for before, after in zip([in_channels, *channels[:-1]], channels, strict=True)
        )
        self.fpn = FeaturePyramidNetwork(list(channels[-len(STRIDES) :]), out_channels)
        self.out_channels = out_channels

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        maps = []
        for stage in self.stages:
            pixels = stage(pixels)
            maps.append(pixels)
        named = OrderedDict((str(level), features) for level, features in enumerate(maps[-len(STRIDES) :]))
        pyramid: OrderedDict[str, Tensor] = self.fpn(named)
        return pyramid
