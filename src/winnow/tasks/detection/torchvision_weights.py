"""Where torchvision's weights lie, and how they get into a model with other classes."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from winnow.errors import WeightsError

logger = logging.getLogger(__name__)

NAMES_SHOWN = 5
"""Parameter names listed in a log line before it is cut."""


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
        return read_weights_file(pretrained)
    try:
        return FoundWeights(_cached_or_fetched(weights, offline), str(weights))
    except WeightsError as error:
        if pretrained is True:
            raise
        logger.warning("ALL WEIGHTS ARE RANDOM (model.pretrained=if_available): %s", error)
        return None


def read_weights_file(path: str) -> FoundWeights:
    """A file of ``torch.save``: a state dict, or a mapping with one under ``model`` or ``state_dict``."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise WeightsError(f"model.pretrained={path!r}: there is no such file (looked for {file.absolute()})")
    return FoundWeights(_read(file), str(file))


def load_fitting(model: nn.Module, found: FoundWeights) -> None:
    """Load the entries of ``found`` whose name and shape fit, and log what fits, is missing or has another shape.

    Raises WeightsError when nothing fits. What does not fit keeps the values it has.
    """
    state, source = found
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise WeightsError(f"nothing in {source} fits the model: it has {_some(state)}, the model {_some(own)}")
    model.load_state_dict(fitting, strict=False)
    reshaped = [
        f"{name} {tuple(value.shape)} → {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and name not in fitting
    ]
    missing = [name for name in own if name not in state]
    unused = [name for name in state if name not in own]
    logger.info("weights from %s: %s of the model's %s entries loaded", source, len(fitting), len(own))
    for kind, names in (("of another shape", reshaped), ("missing", missing), ("not used", unused)):
        if names:
            logger.info("weights from %s: %s %s: %s", source, len(names), kind, _some(names))


def _cached_or_fetched(weights: WeightsEnum, offline: bool) -> Mapping[str, Tensor]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    how = f"fetch {weights.url} into {file.parent} (TORCH_HOME moves it) or give model.pretrained=PATH"
    if file.is_file():
        return _read(file)
    if offline:
        raise WeightsError(f"{weights} are not in {file.parent} and model.offline=true: {how}")
    try:
        return torch.hub.load_state_dict_from_url(weights.url, progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{weights} could not be fetched ({error}): {how}") from error


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{file} can't be read as weights: {error}") from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{file} holds no state dict: a mapping of names to tensors is wanted")
    return content


def _some(names: Any) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return ", ".join(listed[:NAMES_SHOWN]) + more
