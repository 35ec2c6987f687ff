"""How the feature pyramids of two modalities become one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Pyramid = OrderedDict[str, Tensor]


class ConcatFusion(nn.Module):
    """Each level: the channels of both one after the other, and a 1×1 convolution to as many as one of them has."""

    def __init__(self, levels: Sequence[str], channels: int) -> None:
        super().__init__()
        self.joins = nn.ModuleDict({level: _convolution(2 * channels, channels) for level in levels})

    def forward(self, visible: Pyramid, infrared: Pyramid) -> Pyramid:
        return OrderedDict(
            (level, join(torch.cat([visible[level], infrared[level]], dim=1))) for level, join in self.joins.items()
        )


class GatedFusion(nn.Module):
    """Each level: sigmoid gates from both, one per place, channel and modality, that reweight the features before they are added.
    They begin at a half, with which fusion is the mean."""

    def __init__(self, levels: Sequence[str], channels: int) -> None:
        super().__init__()
        self.gates = nn.ModuleDict({level: _convolution(2 * channels, 2 * channels) for level in levels})
        for gate in self.gates.values():
            nn.init.zeros_(gate.weight)  # type: ignore[arg-type]

    def forward(self, visible: Pyramid, infrared: Pyramid) -> Pyramid:
        fused: Pyramid = OrderedDict()
        for level, gate in self.gates.items():
            both = torch.cat([visible[level], infrared[level]], dim=1)
            first, second = (both * gate(both).sigmoid()).chunk(2, dim=1)
            fused[level] = first + second
        return fused


def _convolution(before: int, after: int) -> nn.Conv2d:
    convolution = nn.Conv2d(before, after, 1)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution
