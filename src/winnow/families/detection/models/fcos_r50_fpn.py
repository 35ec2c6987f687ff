"""FCOS on ResNet-50 with a feature pyramid: torchvision's model and weights behind winnow's task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from winnow.builders import builder
from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.pretrained import find_weights
from winnow.checkpoints.state_dicts import load_pretrained
from winnow.families.detection.models.fcos import FcosModel, FcosTask
from winnow.families.detection.models.resnet_fpn import ResnetFpnSettings, resnet50_fpn
from winnow.protocols import Metric
from winnow.settings import build_settings

STRIDES = (8, 16, 32, 64, 128)
CHANNELS = 256


@builder(ResnetFpnSettings)
def fcos_r50_fpn(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> FcosTask:
    """Build the task of ``model=fcos_r50_fpn``; ``pretrained=true`` means torchvision's weights from COCO, 39.2 AP.

    The class head fits ``classes`` and starts at random unless the weights know as many classes. Raises ConfigError
    naming ``model.…`` if a setting is wrong, WeightsError if the weights can't be had or fit nothing.
    """
    settings = build_settings(ResnetFpnSettings, values, "model")
    found = find_weights(settings.pretrained, settings.offline, FCOS_ResNet50_FPN_Weights.COCO_V1)
    backbone = resnet50_fpn(found, settings.trainable_layers, (2, 3, 4), LastLevelP6P7(CHANNELS, CHANNELS))
    model = FcosModel(backbone, FCOSHead(CHANNELS, num_anchors=1, num_classes=len(classes)))
    if found is not None:
        load_pretrained(model, found.state, found.source, ClassHead(classes, FcosTask.class_rows))
    return FcosTask(model, STRIDES, classes, new_metric, max_detections, score_threshold)
