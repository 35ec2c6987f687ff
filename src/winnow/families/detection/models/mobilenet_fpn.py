"""MobileNetV2 with a feature pyramid, a backbone for detectors of torchvision's kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision.models import MobileNet_V2_Weights
from torchvision.models.detection.backbone_utils import BackboneWithFPN, mobilenet_backbone
from torchvision.ops import FrozenBatchNorm2d

from winnow.checkpoints.pretrained import FoundWeights
from winnow.families.convolution import normalization
from winnow.families.detection.models.resnet_fpn import NORM_EPS

IMAGENET_WEIGHTS = MobileNet_V2_Weights.IMAGENET1K_V1
NUM_LAYERS = 6
"""The stages of strides 2, 4, 8, 16 and 32, and the last 1×1 convolution, as torchvision counts them."""
RETURNED_LAYERS = (1, 2, 3, 5)
"""Those of strides 4, 8, 16 and 32; torchvision's default, (4, 5), is stride 32 twice."""


def mobilenet_v2_fpn(
    found: FoundWeights | None, trainable_layers: int, extra_blocks: Any = None, norm_eps: float = NORM_EPS
) -> BackboneWithFPN:
    """Build MobileNetV2 (Sandler et al. 2018) with a feature pyramid of 256 channels at strides 4, 8, 16 and 32, still
    with random weights; ``trainable_layers`` counts from the last stage (6 = all) and matters only when weights were
    ``found``.

    The norms are chosen as ``resnet50_fpn`` does: frozen for weights with batch statistics, in groups without.
    """
    has_statistics = found is not None and any(name.endswith("running_mean") for name in found.state)
    norm_layer: Callable[..., nn.Module] = partial(FrozenBatchNorm2d, eps=norm_eps) if has_statistics else normalization
    backbone = mobilenet_backbone(
        backbone_name="mobilenet_v2",
        weights=None,
        fpn=True,
        norm_layer=norm_layer,
        trainable_layers=NUM_LAYERS if found is None else trainable_layers,
        returned_layers=list(RETURNED_LAYERS),
        extra_blocks=extra_blocks,
    )
    assert isinstance(backbone, BackboneWithFPN)
    return backbone
