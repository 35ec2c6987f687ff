"""Vision encoders of the map model: torchvision's and transformers' with weights of their own, and a small one for CPUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights, WeightsEnum, mobilenet_v2, resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model

from winnow.checkpoints.pretrained import find_weights, load_or_start_random
from winnow.checkpoints.state_dicts import FileWeights, load_pretrained, read_state
from winnow.families.convolution import normalization, normalized_convolution
from winnow.families.maps.model.positions import Grid
from winnow.families.pretrained_folder import model_from_folder

Vision = Literal["resnet50", "mobilenet_v2", "clip", "dinov2"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and deviation of red, green and blue in [0, 1]."""
TORCHVISION: dict[str, WeightsEnum] = {
    "resnet50": ResNet50_Weights.IMAGENET1K_V1,
    "mobilenet_v2": MobileNet_V2_Weights.IMAGENET1K_V1,
}
CHECKPOINTS = {"clip": "openai/clip-vit-base-patch16", "dinov2": "facebook/dinov2-base"}
"""Repositories of the hub."""
_TRANSFORMERS: dict[str, tuple[Any, Any]] = {
    "clip": (CLIPVisionModel, partial(CLIPVisionConfig, patch_size=16)),
    "dinov2": (Dinov2Model, partial(Dinov2Config, patch_size=14)),
}


class VisionEncoder(nn.Module):
    """(N, 3, H, W) uint8 images to (N, T, ``channels``) tokens of the ``grid`` of H × W; a subclass gives ``tokens``."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, stride: int, pixels: tuple[Sequence[float], Sequence[float]] = IMAGENET) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride
        for name, values in zip(("mean", "std"), pixels, strict=True):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def grid(self, height: int, width: int) -> Grid:
        """Return the tokens of an image; a convolution's last row and column may look over the edge."""
        return Grid(math.ceil(height / self.stride), math.ceil(width / self.stride), self.stride)

    def forward(self, images: Tensor) -> Tensor:
        return self.tokens(images.to(torch.float32, copy=True).sub_(self.mean).div_(self.std))

    def tokens(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError


class ConvVision(VisionEncoder):
    """Convolutions of stride 2, one per entry of ``channels`` (multiples of 8)."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels[-1], 2 ** len(channels))
        layers: list[nn.Module] = []
        for before, after in pairwise((3, *channels)):
            layers += [*normalized_convolution(before, after, stride=2), nn.ReLU(inplace=True)]
        # At last each channel by itself, and both its signs: what differs from place to place is what counts.
        self.layers = nn.Sequential(*layers[:-2], nn.GroupNorm(channels[-1], channels[-1]))

    def tokens(self, pixels: Tensor) -> Tensor:
        return _flat(self.layers(pixels))


class TorchvisionEncoder(VisionEncoder):
    """The last map of ``resnet50`` or ``mobilenet_v2``, of stride 32.

    Weights with batch statistics get frozen batch normalisation. Without weights there are no statistics worth freezing: then it
    is group normalisation, never statistics of a micro-batch.
    """

    def __init__(self, vision: str, has_statistics: bool) -> None:
        super().__init__(2048 if vision == "resnet50" else 1280, 32)
        norm: Callable[..., nn.Module] = FrozenBatchNorm2d if has_statistics else normalization
        if vision == "resnet50":
            self.model: nn.Module = IntermediateLayerGetter(resnet50(weights=None, norm_layer=norm), {"layer4": "last"})
        else:
            self.model = mobilenet_v2(weights=None, norm_layer=norm)
            self.model.classifier = nn.Identity()
        self.is_resnet = vision == "resnet50"

    def tokens(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        return _flat(model(pixels)["last"] if self.is_resnet else model.features(pixels))


class TransformerEncoder(VisionEncoder):
    """The patches of a vision transformer of ``transformers``; those that the image's sides don't fill are left out."""

    def __init__(self, model: Any) -> None:
        pixels = OPENAI if isinstance(model, CLIPVisionModel) else IMAGENET
        super().__init__(model.config.hidden_size, model.config.patch_size, pixels)
        self.model: nn.Module = model
        self.options = {"interpolate_pos_encoding": True} if isinstance(model, CLIPVisionModel) else {}

    def grid(self, height: int, width: int) -> Grid:
        return Grid(height // self.stride, width // self.stride, self.stride)

    def tokens(self, pixels: Tensor) -> Tensor:
        states: Tensor = self.model(pixels, **self.options).last_hidden_state
        return states[:, 1:]


def build_vision(vision: Vision, pretrained: bool | str, checkpoint: str | None, offline: bool) -> VisionEncoder:
    """Build an encoder with the weights that ``model.pretrained`` asks for; ``checkpoint`` is another repository of the hub than
    the usual one. Raises WeightsError if weights are absent or don't fit."""
    if vision in TORCHVISION:
        found = find_weights(pretrained, offline, TORCHVISION[vision])
        has_statistics = found is not None and any(name.endswith("running_mean") for name in found.state)
        encoder = TorchvisionEncoder(vision, has_statistics)
        if found is not None:
            load_pretrained(encoder.model, _without_classifier(found.state), found.source)
        return encoder
    kind, config = _TRANSFORMERS[vision]

    def load(path: Path) -> TransformerEncoder:
        if path.is_dir():
            return TransformerEncoder(model_from_folder(kind, path)[0])
        encoder = TransformerEncoder(kind(config()))
        state = read_state(path)
        named = {name.removeprefix("vision_model."): value for name, value in state.items()}
        load_pretrained(encoder.model, FileWeights(named, state.path), str(path))
        return encoder

    return load_or_start_random(
        pretrained, checkpoint or CHECKPOINTS[vision], offline, load=load, start_random=lambda: TransformerEncoder(kind(config()))
    )  # fmt: skip


def _without_classifier(state: Any) -> Any:
    kept = {
        name: value
        for name, value in state.items()
        if not name.startswith(("fc.", "classifier.")) and not name.endswith("num_batches_tracked")
    }
    return FileWeights(kept, state.path) if isinstance(state, FileWeights) else kept


def _flat(features: Tensor) -> Tensor:
    """Return (N, T, C) of maps (N, C, H, W)."""
    return features.flatten(2).transpose(1, 2)
