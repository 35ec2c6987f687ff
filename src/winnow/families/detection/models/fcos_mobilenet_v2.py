"""FCOS on MobileNetV2 with a feature pyramid: from ImageNet's weights to a good detector of a few hundred images in minutes on a
CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field
from torchvision.models.detection.fcos import FCOSHead

from winnow.builders import builder
from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.pretrained import find_weights
from winnow.checkpoints.state_dicts import load_pretrained
from winnow.families.detection.models.fcos import FcosModel, FcosTask
from winnow.families.detection.models.fcos_tiny import HEAD_GROUPS
from winnow.families.detection.models.imagenet import load_classifier
from winnow.families.detection.models.mobilenet_fpn import IMAGENET_WEIGHTS, STAGE_ENDS, mobilenet_v2_levels
from winnow.protocols import Metric
from winnow.settings import Settings, build_settings

STRIDES = (8, 16, 32)


class FcosMobilenetSettings(Settings):
    """``trainable_layers`` counts from the last stage (5 = all) and matters only when weights were loaded; ``head_channels``, the
    pyramid's too, is a multiple of 32."""

    pretrained: bool | str
    offline: bool
    trainable_layers: int = Field(ge=0, le=len(STAGE_ENDS))
    head_channels: int = Field(ge=HEAD_GROUPS, multiple_of=HEAD_GROUPS)
    head_convs: int = Field(ge=1)


@builder(FcosMobilenetSettings)
def fcos_mobilenet_v2(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> FcosTask:
    """Build the task of ``model=fcos_mobilenet_v2``; ``pretrained=true`` means torchvision's weights of ImageNet in the backbone.
    A path may be of such a classifier, or of a detector of this kind.

    Raises ConfigError naming ``model.…`` if a setting is wrong, WeightsError if the weights can't be had or fit nothing.
    """
    settings = build_settings(FcosMobilenetSettings, values, "model")
    found = find_weights(settings.pretrained, settings.offline, IMAGENET_WEIGHTS)
    backbone = mobilenet_v2_levels(found, settings.trainable_layers, settings.head_channels)
    head = FCOSHead(settings.head_channels, num_anchors=1, num_classes=len(classes), num_convs=settings.head_convs)
    model = FcosModel(backbone, head)
    if found is not None and any(name.startswith("backbone.") for name in found.state):
        load_pretrained(model, found.state, found.source, ClassHead(classes, FcosTask.class_rows))
    elif found is not None:
        load_classifier(backbone, found, [f"features.{STAGE_ENDS[-1]}."])
    return FcosTask(model, STRIDES, classes, new_metric, max_detections, score_threshold)
