"""A small FCOS that learns fast on a CPU from random weights: four convolutional stages, two levels, GroupNorm
throughout."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.fcos import FCOSHead

from winnow.builders import builder
from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.pretrained import check_pretrained, find_weights
from winnow.checkpoints.state_dicts import load_pretrained
from winnow.families.convolution import CHANNELS_PER_GROUP
from winnow.families.detection.models.conv_backbone import convolution
from winnow.families.detection.models.fcos import FcosModel, FcosTask
from winnow.protocols import Metric
from winnow.settings import Settings, build_settings

STRIDES = (8, 16)
HEAD_GROUPS = 32
"""torchvision's head normalises in 32 groups."""


class FcosTinySettings(Settings):
    """``channels`` of the four stages (strides 2, 4, 8, 16), each a multiple of 8; ``head_channels`` a multiple of
    32."""

    channels: list[int] = Field(min_length=4, max_length=4)
    head_channels: int = Field(ge=HEAD_GROUPS, multiple_of=HEAD_GROUPS)
    head_convs: int = Field(ge=1)
    pretrained: bool | str
    offline: bool

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: list[int]) -> list[int]:
        if any(count < 1 or count % CHANNELS_PER_GROUP for count in channels):
            raise ValueError(f"must be positive multiples of {CHANNELS_PER_GROUP}")
        return channels


class TinyBackbone(nn.Module):
    """Maps of strides 8 and 16 with ``out_channels`` each, the coarser added to the finer as in a feature pyramid."""

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after, 2), convolution(after, after, 1))
            for before, after in zip([3, *channels[:-1]], channels, strict=True)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(count, out_channels, 1) for count in channels[-len(STRIDES) :])

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        maps = []
        for stage in self.stages:
            pixels = stage(pixels)
            maps.append(pixels)
        fine, coarse = (lateral(x) for lateral, x in zip(self.laterals, maps[-len(STRIDES) :], strict=True))
        return OrderedDict(fine=fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest"), coarse=coarse)


@builder(FcosTinySettings)
def fcos_tiny(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> FcosTask:
    """Build the task of ``model=fcos_tiny``; ``pretrained`` is false or the path of a weights file, and nothing is ever
    fetched.

    Raises ConfigError naming ``model.…`` if a setting is wrong, WeightsError if the weights file is missing or fits
    nothing.
    """
    settings = build_settings(FcosTinySettings, values, "model")
    check_pretrained(settings.pretrained, checkpoint=None)
    model = FcosModel(
        TinyBackbone(settings.channels, settings.head_channels),
        FCOSHead(settings.head_channels, num_anchors=1, num_classes=len(classes), num_convs=settings.head_convs),
    )
    found = find_weights(settings.pretrained, settings.offline, None)
    if found is not None:
        load_pretrained(model, found.state, found.source, ClassHead(classes, FcosTask.class_rows))
    return FcosTask(model, STRIDES, classes, new_metric, max_detections, score_threshold)
