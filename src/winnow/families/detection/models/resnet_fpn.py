"""What the two ResNet-50 detectors of torchvision share: their settings and a feature pyramid that fits the weights
found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pydantic import Field
from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from winnow.checkpoints.pretrained import FoundWeights
from winnow.settings import Settings

NUM_LAYERS = 5
"""The stem and four stages, as torchvision counts them."""
NORM_EPS = 1e-5
"""What frozen batch norms add to a variance."""


class ResnetFpnSettings(Settings):
    """``trainable_layers`` counts from the last stage (5 = all) and matters only when weights were loaded."""

    pretrained: bool | str
    offline: bool
    trainable_layers: int = Field(ge=0, le=NUM_LAYERS)


def resnet50_fpn(
    found: FoundWeights | None,
    trainable_layers: int,
    returned_layers: Sequence[int],
    extra_blocks: Any,
    norm_eps: float = NORM_EPS,
) -> BackboneWithFPN:
    """Build ResNet-50 (He et al. 2016) with a feature pyramid of 256 channels (Lin et al. 2017), still with random
    weights.

    Weights with batch statistics get frozen batch normalisation. Without weights there are no statistics worth
    freezing: such a backbone has group normalisation (Wu and He 2018), never statistics of a micro-batch, and all of it
    trains.
    """
    has_statistics = found is not None and any(name.endswith("running_mean") for name in found.state)
    frozen = partial(FrozenBatchNorm2d, eps=norm_eps)
    norm_layer: Callable[..., nn.Module] = frozen if has_statistics else partial(nn.GroupNorm, 32)
    return resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=norm_layer,
        trainable_layers=NUM_LAYERS if found is None else trainable_layers,
        returned_layers=list(returned_layers),
        extra_blocks=extra_blocks,
    )
