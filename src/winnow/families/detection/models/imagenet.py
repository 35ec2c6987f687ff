"""Weights of torchvision's classifiers in the backbones of detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from winnow.checkpoints.pretrained import FoundWeights
from winnow.checkpoints.state_dicts import FileWeights, load_pretrained, mark_loaded

_CLASSIFIERS = ("fc.", "classifier.")


def load_classifier(backbone: BackboneWithFPN, found: FoundWeights, left_out: Sequence[str] = ()) -> None:
    """Load the weights of a classifier into the body of ``backbone``, all but its last layer and what begins with one of
    ``left_out``. Raises WeightsError where they are of another network."""
    load_pretrained(backbone.body, _of_body(found.state, (*_CLASSIFIERS, *left_out)), found.source)


def set_input_channels(backbone: BackboneWithFPN, channels: int, source: str | None) -> None:
    """Give the body of ``backbone`` another number of input channels than 3: 1, whose filters are the sum of those of
    red, green and blue, as if the same image were given thrice; or 4, of which the last has their mean. ``source`` says
    where the weights are from; None: at random, and drawn anew."""
    place, first = next((place, part) for place, part in backbone.body.named_modules() if isinstance(part, nn.Conv2d))
    shape: dict[str, Any] = {name: getattr(first, name) for name in ("kernel_size", "stride", "padding")}
    new = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **shape)
    if source is None:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    else:
        rgb = first.weight.detach()
        filters = rgb.sum(dim=1, keepdim=True) if channels == 1 else torch.cat([rgb, rgb.mean(dim=1, keepdim=True)], 1)
        new.weight = nn.Parameter(filters, requires_grad=first.weight.requires_grad)
    owner, _, last = place.rpartition(".")
    setattr(backbone.body.get_submodule(owner), last, new)
    if source is not None:
        mark_loaded(backbone.body, [f"{place}.weight"], source)


def _of_body(state: Mapping[str, Tensor], left_out: tuple[str, ...]) -> Mapping[str, Tensor]:
    kept = {
        name.removeprefix("features."): value
        for name, value in state.items()
        if not name.startswith(left_out) and not name.endswith("num_batches_tracked")
    }
    return FileWeights(kept, state.path) if isinstance(state, FileWeights) else kept
