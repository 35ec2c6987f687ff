"""Where a model's first weights come from: the hub or its cache, a local folder or file, or nowhere; knows no model."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor, nn

from winnow.errors import ConfigError, WeightsError

logger = logging.getLogger(__name__)

IF_AVAILABLE = "if_available"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
METADATA_TIMEOUT_S = 5.0
NAMES_SHOWN = 8

Model = TypeVar("Model")


@dataclass(frozen=True)
class LoadReport:
    """Which of a model's entries the weights of ``source`` filled. ``missing`` and ``reshaped`` kept their random
    start, ``unexpected`` were in the weights only."""

    source: str
    matched: int
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def random_names(self) -> frozenset[str]:
        return frozenset(self.missing) | frozenset(self.reshaped)

    def log(self) -> None:
        """One line of counts, and one for each kind of entry that did not match."""
        total = self.matched + len(self.random_names)
        logger.info("weights of %s: %s of %s entries matched", self.source, self.matched, total)
        for kind, names in (("missing", self.missing), ("reshaped", self.reshaped), ("unexpected", self.unexpected)):
            if names:
                fate = "ignored" if kind == "unexpected" else "start from random values"
                logger.warning("weights of %s: %s %s, %s: %s", self.source, len(names), kind, fate, _shortened(names))

    def require_match(self) -> None:
        """Raise WeightsError when less than half of the model was filled: these weights belong to another model."""
        total = self.matched + len(self.random_names)
        if 2 * self.matched < total:
            raise WeightsError(
                f"model.pretrained: only {self.matched} of {total} entries of the model are in {self.source} with the "
                f"same shape; choose weights of this model (not filled: {_shortened(sorted(self.random_names))})"
            )


def check_pretrained(pretrained: bool | str, checkpoint: str | None) -> None:
    """Refuse what could never be loaded, without looking at the disk or the network; ``checkpoint`` None says that no
    weights of the model are published. Raises ConfigError."""
    if isinstance(pretrained, str) and not pretrained.strip():
        raise ConfigError("model.pretrained is empty; allowed: true, false, if_available, or a path")
    if checkpoint is not None and (not isinstance(checkpoint, str) or checkpoint.count("/") != 1):
        raise ConfigError(f"model.checkpoint={checkpoint!r}; allowed: a repository of the hub, as in owner/name")
    if pretrained is True and checkpoint is None:
        raise ConfigError(
            "model.pretrained=true, but no weights of this model are published; allowed: false, if_available, or a path"
        )


def load_or_start_random(
    pretrained: bool | str,
    checkpoint: str | None,
    offline: bool,
    *,
    load: Callable[[Path], Model],
    start_random: Callable[[], Model],
) -> Model:
    """The model by ``model.pretrained``: ``true`` and a path must load, ``false`` starts random, ``if_available`` loads
    or, with a loud warning, starts random. Raises WeightsError when weights that must load are absent or do not fit."""
    if pretrained is False:
        return start_random()
    try:
        return load(locate_weights(pretrained, checkpoint, offline))
    except WeightsError as error:
        if pretrained != IF_AVAILABLE:
            raise
        logger.warning(
            "NO PRETRAINED WEIGHTS, the model starts from random values (model.pretrained=if_available): %s", error
        )
    return start_random()


def locate_weights(pretrained: bool | str, checkpoint: str | None, offline: bool) -> Path:
    """A folder written by ``save_pretrained`` or a weights file: ``pretrained`` itself if it is a path, else
    ``checkpoint`` from the local hub cache or, unless ``offline``, fetched into it. Raises WeightsError."""
    if isinstance(pretrained, str) and pretrained != IF_AVAILABLE:
        path = Path(pretrained).expanduser()
        if not path.exists():
            raise WeightsError(
                f"model.pretrained={pretrained!r} does not exist; allowed: true, false, if_available, or the path of a "
                "folder written by save_pretrained or of a .safetensors, .pth or .bin file"
            )
        return path
    if checkpoint is None:
        raise WeightsError("no weights of this model are published; model.pretrained=PATH names your own")
    return _snapshot(checkpoint, offline)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name; of a winnow checkpoint those under ``model``. Raises WeightsError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise WeightsError(f"model.pretrained={str(path)!r} cannot be read as weights: {error}") from error
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"model.pretrained={str(path)!r} holds no tensors by name; a state dict is wanted")
    return dict(state)


def load_matching(model: nn.Module, state: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copy the entries of ``state`` whose name and shape fit into ``model``, and say what fitted."""
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return LoadReport(
        source=source,
        matched=len(fitting),
        missing=tuple(sorted(own.keys() - state.keys())),
        reshaped=tuple(sorted((own.keys() & state.keys()) - fitting.keys())),
        unexpected=tuple(sorted(state.keys() - own.keys())),
    )


def _snapshot(checkpoint: str, offline: bool) -> Path:
    folder = _snapshot_if_cached(checkpoint)
    if folder is not None:
        return folder
    fetch = (
        f"fetch them where there is a network: `hf download {checkpoint}` (then copy the cache, or set HF_HOME to it), "
        "or set model.pretrained=PATH to a local copy, or model.pretrained=if_available to start from random values"
    )
    if offline:
        raise WeightsError(f"weights {checkpoint!r} are not in the local cache and model.offline=true; {fetch}")
    logger.info("fetching weights %s from the hub", checkpoint)
    try:
        # The safe format first: the pickled copy of the same weights is only fetched where it is the only one.
        for name in WEIGHT_FILES:
            patterns = ["config.json", name]
            folder = Path(snapshot_download(checkpoint, allow_patterns=patterns, etag_timeout=METADATA_TIMEOUT_S))
            if (folder / name).is_file():
                return folder
    except (HTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"weights {checkpoint!r} are not in the local cache and the hub did not give them ({reason}); {fetch}"
        ) from error
    raise WeightsError(f"the hub's {checkpoint!r} holds none of {', '.join(WEIGHT_FILES)}; {fetch}")


def _snapshot_if_cached(checkpoint: str) -> Path | None:
    try:
        folder = Path(snapshot_download(checkpoint, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    complete = (folder / "config.json").is_file() and any((folder / name).is_file() for name in WEIGHT_FILES)
    return folder if complete else None


def _shortened(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
