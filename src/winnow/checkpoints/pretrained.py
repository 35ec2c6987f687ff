"""Where a model's first weights come from: the hub or its cache, a local folder or file, or nowhere; knows no model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError
from torch import Tensor
from torchvision.models import WeightsEnum

from winnow.checkpoints.shapes import is_shapes_only
from winnow.checkpoints.state_dicts import read_state
from winnow.errors import ConfigError, WeightsError

logger = logging.getLogger(__name__)

IF_AVAILABLE = "if_available"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
METADATA_TIMEOUT_S = 5.0

Model = TypeVar("Model")


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
    published: str | WeightsEnum | None,
    offline: bool,
    *,
    load: Callable[[Path], Model],
    start_random: Callable[[], Model],
) -> Model:
    """Build the model by ``model.pretrained``: ``true`` and a path must load, ``false`` starts random, ``if_available``
    loads or, with a loud warning, starts random; by shapes alone nothing is loaded. Raises WeightsError if weights that must
    load are absent or do not fit.
    """
    if pretrained is False or is_shapes_only():
        return start_random()
    try:
        return load(locate_weights(pretrained, published, offline))
    except WeightsError as error:
        if pretrained != IF_AVAILABLE:
            raise
        logger.warning(
            "NO PRETRAINED WEIGHTS, the model starts from random values (model.pretrained=if_available): %s", error
        )
    return start_random()


def locate_weights(pretrained: bool | str, published: str | WeightsEnum | None, offline: bool) -> Path:
    """Return a folder written by ``save_pretrained`` or a weights file: ``pretrained`` itself if it is a path, else what is
    ``published``, a repository of the hub or weights of torchvision, from the local cache or, unless ``offline``, fetched into
    it. Raises WeightsError."""
    if isinstance(pretrained, str) and pretrained != IF_AVAILABLE:
        path = Path(pretrained).expanduser()
        if not path.exists():
            raise WeightsError(
                f"model.pretrained={pretrained!r} does not exist; allowed: true, false, if_available, or the path of a "
                "folder written by save_pretrained or of a .safetensors, .pth or .bin file"
            )
        return path
    if published is None:
        raise WeightsError("no weights of this model are published; model.pretrained=PATH names your own")
    return _snapshot(published, offline) if isinstance(published, str) else _fetched_once(published, offline)


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


class FoundWeights(NamedTuple):
    """A state dict and where it came from."""

    state: Mapping[str, Tensor]
    source: str


def find_weights(pretrained: bool | str, offline: bool, weights: WeightsEnum | None) -> FoundWeights | None:
    """Return the tensors that ``model.pretrained`` asks for, of a file or of torchvision's ``weights``; None for a random
    start.

    For models that load them by themselves; as ``load_or_start_random`` in all else.
    """
    is_own = isinstance(pretrained, str) and pretrained != IF_AVAILABLE
    source = str(pretrained if is_own else weights)
    state = _standing_in.get()
    if state is not None and pretrained is not False:
        device = torch.get_default_device()  # meta where a model without memory is built
        return FoundWeights({name: value.to(device) for name, value in state.items()}, source)

    def load(path: Path) -> FoundWeights | None:
        return FoundWeights(read_state(path), source)

    return load_or_start_random(pretrained, weights, offline, load=load, start_random=lambda: None)


@contextmanager
def standing_in(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, ``find_weights`` gives ``state``, a trained model's own, for whatever it is asked for: a model is then built as it
    was when it trained, without the file that it began from."""
    token = _standing_in.set(state)
    try:
        yield
    finally:
        _standing_in.reset(token)


_standing_in: ContextVar[Mapping[str, Tensor] | None] = ContextVar("standing_in", default=None)


def file_in_hub(weights: WeightsEnum) -> Path:
    """Return where ``weights`` of torchvision lie in torch.hub's cache, once they were fetched."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name


def _fetched_once(weights: WeightsEnum, offline: bool) -> Path:
    """Return the file of ``weights`` in torch.hub's cache, fetched there first if need be and allowed."""
    file = file_in_hub(weights)
    how = (
        f"fetch {weights.url} into {file.parent} (TORCH_HOME moves it), or set model.pretrained=PATH to a local copy, or "
        "model.pretrained=if_available to start from random values"
    )
    if file.is_file():
        return file
    if offline:
        raise WeightsError(f"{weights} are not in {file.parent} and model.offline=true: {how}")
    logger.info("fetching %s from %s", weights, weights.url)
    try:
        # What it returns is read again by whoever asked, so that a file is read in one way whether it was there or not.
        torch.hub.load_state_dict_from_url(weights.url, progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{weights} could not be fetched ({error}): {how}") from error
    return file
