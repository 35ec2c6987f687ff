"""The project's own model: a small backbone, written here, under winnow's FCOS with its losses and predictions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead

from winnow.builders import builder
from winnow.families.detection.models.fcos import FcosModel, FcosTask
from winnow.protocols import Metric
from winnow.settings import Settings, build_settings

STRIDES = (8, 16)


class ModelSettings(Settings):
    """The keys of conf/model/mine.yaml: what a value may be is checked before any data is read."""

    channels: list[int] = Field(min_length=4, max_length=4)
    head_channels: int = Field(ge=32, multiple_of=32)


class Backbone(nn.Module):
    """Maps of strides 8 and 16 with ``out_channels`` each, from (B, 3, H, W) normalised images."""

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        before = (3, *channels[:-1])
        self.stages = nn.ModuleList(_stage(*pair) for pair in zip(before, channels, strict=True))
        self.laterals = nn.ModuleList(nn.Conv2d(count, out_channels, 1) for count in channels[-2:])

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        maps = []
        for stage in self.stages:
            pixels = stage(pixels)
            maps.append(pixels)
        fine, coarse = (lateral(features) for lateral, features in zip(self.laterals, maps[-2:], strict=True))
        return OrderedDict(fine=fine, coarse=coarse)


def _stage(before: int, after: int) -> nn.Sequential:
    """Build a stage that halves the sides. GroupNorm: a batch on a CPU is too small for BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(after // 8, after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.GroupNorm(after // 8, after),
        nn.ReLU(inplace=True),
    )


@builder(ModelSettings)
def build(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> FcosTask:
    """Build the task of ``model=mine`` for the classes of the data."""
    settings = build_settings(ModelSettings, values, "model")
    model = FcosModel(
        Backbone(settings.channels, settings.head_channels),
        FCOSHead(settings.head_channels, num_anchors=1, num_classes=len(classes), num_convs=2),
    )
    return FcosTask(model, STRIDES, classes, new_metric, max_detections, score_threshold)
