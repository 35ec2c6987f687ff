"""Where torchvision's weights lie, and how they are fetched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from winnow.errors import WeightsError
from winnow.state_dicts import read_state

logger = logging.getLogger(__name__)


class FoundWeights(NamedTuple):
    """A state dict and where it came from."""

    state: Mapping[str, Tensor]
    source: str


def find_weights(pretrained: bool | str, offline: bool, weights: WeightsEnum) -> FoundWeights | None:
    """What ``model.pretrained`` asks for: true (``weights``), false (None), ``if_available`` or the path of a file.

    ``weights`` are looked for in torch.hub's cache and, unless ``offline``, fetched there. Raises WeightsError when
    they can't be had; with ``if_available`` that is only logged, loudly, and gives None.
    """
    if pretrained is False:
        logger.info("model.pretrained=false: all weights are random")
        return None
    if isinstance(pretrained, str) and pretrained != "if_available":
        return FoundWeights(read_state(Path(pretrained).expanduser()), pretrained)
    try:
        return FoundWeights(_cached_or_fetched(weights, offline), str(weights))
    except WeightsError as error:
        if pretrained is True:
            raise
        logger.warning("ALL WEIGHTS ARE RANDOM (model.pretrained=if_available): %s", error)
        return None


def _cached_or_fetched(weights: WeightsEnum, offline: bool) -> Mapping[str, Tensor]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    how = f"fetch {weights.url} into {file.parent} (TORCH_HOME moves it) or give model.pretrained=PATH"
    if file.is_file():
        return read_state(file)
    if offline:
        raise WeightsError(f"{weights} are not in {file.parent} and model.offline=true: {how}")
    try:
        return torch.hub.load_state_dict_from_url(weights.url, progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{weights} could not be fetched ({error}): {how}") from error
