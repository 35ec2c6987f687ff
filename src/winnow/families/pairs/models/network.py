"""The network of a pair detector: pyramids of each modality, fused or not, with one detector or two on them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from winnow.families.detection.models.pixels import PixelNormalizer
from winnow.families.pairs.batch import CHANNELS as BATCH_CHANNELS
from winnow.families.pairs.batch import MODALITIES
from winnow.families.pairs.models.detector import PairDetector
from winnow.families.pairs.models.fusion import Pyramid
from winnow.families.pairs.models.macl import AlignmentHead

CHANNELS = dict(zip(MODALITIES, BATCH_CHANNELS, strict=True))
NUM_CHANNELS = {name: channels.stop - channels.start for name, channels in CHANNELS.items()}
FUSED = "fused"
SHARED = "shared"
NORMS = (nn.GroupNorm, FrozenBatchNorm2d, nn.BatchNorm2d)


class PairFeatures(NamedTuple):
    """``detectors``: the pyramid that each detector looks at, by its name; ``modalities``: that of each modality before
    fusion, none where their channels are stacked."""

    detectors: Mapping[str, Pyramid]
    modalities: Mapping[str, Pyramid]


class PairNetwork(nn.Module):
    """(B, 4, H, W) uint8 images in, pyramids out; the task calls the ``detectors``.

    ``backbones`` are named by the modalities that they see, ``fused`` where that is both at once, ``shared`` where that
    is both in turn; with ``fusion`` two pyramids become the one of the detector ``fused``. ``alignment`` only projects for
    MACL."""

    def __init__(
        self,
        normalize: PixelNormalizer,
        backbones: Mapping[str, nn.Module],
        fusion: nn.Module | None,
        detectors: Mapping[str, PairDetector],
        alignment: AlignmentHead | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbones = nn.ModuleDict(backbones)
        self.fusion = fusion
        self.detectors = nn.ModuleDict(detectors)
        self.alignment = alignment

    def forward(self, images: Tensor, pixel_mask: Tensor, present: Tensor) -> PairFeatures:
        """Return the pyramids of ``images``; those not ``present`` (B, 2) are their modality's mean, and add nothing to
        what is fused: a norm would make much of the little that a plain image gives."""
        pixels = self.normalize(images, pixel_mask)
        seen = [present[:, [index]].expand(-1, count) for index, count in enumerate(NUM_CHANNELS.values())]
        pixels = pixels.mul_(torch.cat(seen, dim=1)[:, :, None, None])
        if FUSED in self.backbones:
            return PairFeatures({FUSED: self.backbones[FUSED](pixels)}, {})
        modalities = {
            name: _masked(pyramid, present[:, MODALITIES.index(name)])
            for name, pyramid in self._modalities(pixels).items()
        }
        if self.fusion is None:
            return PairFeatures(modalities, modalities)
        return PairFeatures({FUSED: self.fusion(*(modalities[name] for name in MODALITIES))}, modalities)

    def _modalities(self, pixels: Tensor) -> dict[str, Pyramid]:
        """Return the pyramid of each modality that there is a backbone for."""
        if SHARED not in self.backbones:
            return {name: backbone(pixels[:, CHANNELS[name]]) for name, backbone in self.backbones.items()}
        both = torch.cat([pixels[:, CHANNELS[name]].expand(-1, 3, -1, -1) for name in MODALITIES])
        halves = {level: features.chunk(2) for level, features in self.backbones[SHARED](both).items()}
        return {
            name: OrderedDict((level, half[index]) for level, half in halves.items())
            for index, name in enumerate(MODALITIES)
        }


def _masked(pyramid: Pyramid, is_there: Tensor) -> Pyramid:
    return OrderedDict((level, features * is_there[:, None, None, None]) for level, features in pyramid.items())


class ModalityNorms(nn.Module):
    """A norm per modality: the first half of a batch holds the visible images, the second the infrared ones."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.visible = norm
        self.infrared = copy.deepcopy(norm)

    def forward(self, features: Tensor) -> Tensor:
        visible, infrared = features.chunk(2)
        return torch.cat([self.visible(visible), self.infrared(infrared)])


def give_own_norms(backbone: nn.Module) -> None:
    """Put ``ModalityNorms`` in place of each norm of a shared backbone; both begin as it is."""
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NORMS):
                setattr(module, name, ModalityNorms(child))


def make_backbones(fusion: str, is_shared: bool, make: Callable[[int], nn.Module]) -> dict[str, nn.Module]:
    """Build the backbones that a ``fusion`` needs, each by ``make(its input channels)``."""
    if fusion in MODALITIES:
        return {fusion: make(NUM_CHANNELS[fusion])}
    if fusion == "early":
        return {FUSED: make(sum(NUM_CHANNELS.values()))}
    if is_shared:
        return {SHARED: make(NUM_CHANNELS["visible"])}
    return {name: make(NUM_CHANNELS[name]) for name in MODALITIES}
