"""MobileNetV2 with a feature pyramid, a backbone for detectors of torchvision's kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
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
STAGE_ENDS = (2, 4, 7, 14, 18)
"""Where the stages of strides 2, 4, 8, 16 and 32 end among torchvision's blocks; the last 1×1 convolution is left out."""


def mobilenet_v2_fpn(
    found: FoundWeights | None, trainable_layers: int, extra_blocks: Any = None, norm_eps: float = NORM_EPS
) -> BackboneWithFPN:
    """Build MobileNetV2 (Sandler et al. 2018) with a feature pyramid of 256 channels at strides 4, 8, 16 and 32, still
    with random weights; ``trainable_layers`` counts from the last stage (6 = all) and matters only when weights were
    ``found``.

    The norms are chosen as ``resnet50_fpn`` does: frozen for weights with batch statistics, in groups without.
    """
    backbone = mobilenet_backbone(
        backbone_name="mobilenet_v2",
        weights=None,
        fpn=True,
        norm_layer=_norm_layer(found, norm_eps),
        trainable_layers=NUM_LAYERS if found is None else trainable_layers,
        returned_layers=list(RETURNED_LAYERS),
        extra_blocks=extra_blocks,
    )
    assert isinstance(backbone, BackboneWithFPN)
    return backbone


def mobilenet_v2_levels(found: FoundWeights | None, trainable_layers: int, channels: int) -> BackboneWithFPN:
    """Build MobileNetV2 with a feature pyramid of ``channels`` at strides 8, 16 and 32, of each stage's last block, still with
    random weights; ``trainable_layers`` counts from the last of five stages and matters only when weights were ``found``.

    The norms are chosen as ``mobilenet_v2_fpn`` does; frozen ones are multiplied into their convolutions.
    """
    blocks = mobilenet_v2(weights=None, norm_layer=_norm_layer(found, NORM_EPS)).features[: STAGE_ENDS[-1]]
    if found is not None:
        frozen = STAGE_ENDS[: len(STAGE_ENDS) - trainable_layers]
        blocks[: max(frozen, default=0)].requires_grad_(False)
    for module in list(blocks.modules()):
        if isinstance(module, nn.Sequential) and any(isinstance(part, FrozenBatchNorm2d) for part in module):
            module.__class__ = FoldedSequential
    levels = STAGE_ENDS[2:]
    returned = {str(end - 1): str(level) for level, end in enumerate(levels)}
    backbone = BackboneWithFPN(blocks, returned, [blocks[end - 1].out_channels for end in levels], channels)
    backbone.fpn.extra_blocks = None  # torchvision would add a level of stride 64
    return backbone


class FoldedSequential(nn.Sequential):
    """A block of torchvision's whose frozen norms each follow a convolution, whose weights are multiplied by them: the same
    function of the same parameters without a pass over the maps, which takes a CPU longer than a depthwise convolution."""

    def forward(self, features: Tensor) -> Tensor:
        parts = list(self)
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            if isinstance(part, nn.Conv2d) and isinstance(following, FrozenBatchNorm2d):
                features = _normalized_convolution(features, part, following)
            elif not isinstance(part, FrozenBatchNorm2d):
                features = part(features)
        return features


def _normalized_convolution(features: Tensor, convolution: nn.Conv2d, norm: FrozenBatchNorm2d) -> Tensor:
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return F.conv2d(
        features, convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale,
        convolution.stride, convolution.padding, convolution.dilation, convolution.groups,
    )  # fmt: skip


def _norm_layer(found: FoundWeights | None, norm_eps: float) -> Callable[..., nn.Module]:
    """Return frozen norms for weights with batch statistics, norms in groups without."""
    has_statistics = found is not None and any(name.endswith("running_mean") for name in found.state)
    return partial(FrozenBatchNorm2d, eps=norm_eps) if has_statistics else normalization
