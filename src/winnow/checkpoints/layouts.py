"""What other programs' checkpoints hold, and under which names: one table of layouts for starting, resuming and comparing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from winnow.checkpoints.inert import read_inert
from winnow.checkpoints.references import KEY as REFERENCES
from winnow.checkpoints.references import filled
from winnow.errors import WeightsError, WinnowError

Weights = dict[str, Tensor]

WEIGHTS = ("training_state_dict", "model_state_dict", "model", "state_dict", "net", "network", "weights", "module")
AVERAGES = ("ema_state_dict", "model_ema", "ema_model", "ema")
OPTIMIZERS = ("optimizer_state_dict", "optimizer", "optim", "optimizer_states")
SCHEDULERS = ("scheduler_state_dict", "lr_scheduler_state_dict", "scheduler", "lr_scheduler", "lr_schedulers")
SCALERS = ("scaler_state_dict", "scaler", "grad_scaler", "MixedPrecision", "native_amp_scaling_state")
GENERATORS = ("rng", "rng_state", "torch_rng_state")
CONFIGS = ("config", "cfg", "hyper_parameters", "hparams", "args", "opt")
EPOCHS = ("epoch", "last_epoch", "epochs_run")
STEPS = ("step", "global_step", "iteration", "iter", "num_steps")
LIGHTNING = "pytorch-lightning_version"
_WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


@dataclass(frozen=True)
class ForeignCheckpoint:
    """What a file of another program holds, in winnow's words; None for what it lacks.

    ``average``: EMA weights. ``epoch``: finished epochs as the file tells them. ``classes``: names in
    their order. ``unread``: keys that nothing here understands.
    """

    path: Path
    layout: str
    weights: Weights
    average: Weights | None = None
    optimizer: Mapping[str, Any] | None = None
    scheduler: Any = None
    scaler: Mapping[str, Any] | None = None
    rng: Any = None
    config: Mapping[str, Any] | None = None
    epoch: int | None = None
    step: int | None = None
    sample: int = 0
    metrics: Mapping[str, float] | None = None
    classes: tuple[str, ...] | None = None
    unread: tuple[str, ...] = ()


def read_foreign(path: Path, as_what: str, error: type[WinnowError]) -> ForeignCheckpoint:
    """Read the whole file by its layout. Raises ``error`` if it can't be read or holds no weights; nothing in it is
    executed.
    """
    content = read_inert(path, as_what, error)
    if isinstance(content, Mapping) and REFERENCES in content:
        content = with_frozen_weights(content, path)
    bare = tensors_of(content)
    if bare is not None:
        return ForeignCheckpoint(path, "tensors by name", without_wrappers(bare))
    if not isinstance(content, Mapping):
        raise error(
            f"{path} holds no tensors by name but a {type(content).__name__}; a checkpoint or state dict is wanted"
        )
    found = _weights(content)
    if found is None:
        keys = ", ".join(map(repr, list(content)[:12])) or "nothing"
        raise error(
            f"{path} holds no tensors by name: found {keys}; weights are looked for at the top, under {', '.join(WEIGHTS)} and "
            "NAME_state_dict"
        )
    key, weights = found
    return _described(path, key, weights, content)


def read_tensors(path: Path) -> Weights:
    """Return the tensors of a weights file by name, averaged ones where it has them. Raises WeightsError naming the file."""
    file = read_weights(path)
    return file.average or file.weights


def read_weights(path: Path) -> ForeignCheckpoint:
    """Read a weights file of any layout. Raises WeightsError naming the file."""
    return read_foreign(path, "weights", WeightsError)


def with_frozen_weights(checkpoint: Mapping[str, Any], path: Path, frozen_source: str | None = None) -> dict[str, Any]:
    """Return a checkpoint of winnow's with the frozen weights that it only names (training.frozen_weights=referenced), as
    ``references.filled`` does."""
    try:
        return filled(checkpoint, path, frozen_source, read_tensors)
    except (AttributeError, LookupError, TypeError) as error:
        raise WeightsError(f"{path}: its {REFERENCES} are not as winnow writes them ({error!r})") from error


def _described(path: Path, key: str, weights: Weights, content: Mapping[str, Any]) -> ForeignCheckpoint:
    is_lightning = LIGHTNING in content
    read = {name: _first(content, names) for name, names in _PARTS.items()}
    taken = {
        key,
        *(taken_key for taken_key, _ in read.values() if taken_key),
        *(name for name in content if _is_part(name)),
    }
    progress = content.get("progress")
    sample = progress.get("sample", 0) if isinstance(progress, Mapping) else 0
    epoch = _finished_epochs_of_lightning(content) if is_lightning else None
    metrics = content.get("metrics")
    optimizer = read["optimizer"][1]
    return ForeignCheckpoint(
        path=path,
        layout=f"Lightning {content[LIGHTNING]}" if is_lightning else key,
        weights=weights,
        average=_average(read["average"][1], weights),
        optimizer=_single(optimizer) if isinstance(optimizer, Sequence) else _mapping(optimizer),
        scheduler=read["scheduler"][1] or None,
        scaler=_mapping(read["scaler"][1]) or None,
        rng=read["rng"][1],
        config=_mapping(read["config"][1]),
        epoch=epoch if epoch is not None else _count(read["epoch"][1]),
        step=_count(read["step"][1]),
        sample=sample if isinstance(sample, int) and sample > 0 else 0,
        metrics=_numbers(metrics) if isinstance(metrics, Mapping) else None,
        classes=_names(content.get("classes")),
        unread=tuple(
            str(name)
            for name in content
            if name not in taken and name not in ("metrics", "progress", "classes", LIGHTNING, REFERENCES)
        ),
    )


_PARTS = {
    "average": AVERAGES, "optimizer": OPTIMIZERS, "scheduler": SCHEDULERS, "scaler": SCALERS, "rng": GENERATORS,
    "config": CONFIGS, "epoch": EPOCHS, "step": STEPS,
}  # fmt: skip


def tensors_of(value: Any) -> Weights | None:
    """Return ``value`` as tensors by name; None if it is anything else. What modules keep besides tensors is left out."""
    if not isinstance(value, Mapping):
        return None
    named = {name: item for name, item in value.items() if not str(name).endswith("_extra_state")}
    is_state = named and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in named.items())
    return dict(named) if is_state else None


def without_wrappers(state: Mapping[str, Tensor]) -> Weights:
    """Return names as the model itself has them: ``_orig_mod.`` wherever it stands, ``module.`` where every name begins
    with it.
    """
    is_average = all(
        name == "n_averaged" or name.startswith("module.") for name in state
    )  # torch's AveragedModel counts
    names = {name: name.replace("_orig_mod.", "") for name in state if not (is_average and name == "n_averaged")}
    while names and all(name.startswith(_WRAPPERS) and name not in _WRAPPERS for name in names.values()):
        names = {old: name.partition(".")[2] for old, name in names.items()}
    if len(set(names.values())) < len(names) or not names:
        return dict(state)
    return {name: state[old] for old, name in names.items()}


def aligned(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[Weights, str | None]:
    """Return ``weights`` under the names of a model whose state is ``own``, and in words what was changed about them.

    A file of a whole program may hold the model below a prefix (``model.`` in Lightning), the file of a part may lack
    one (an encoder alone). A prefix is taken away or added only where more entries fit by name and shape than without,
    and at least half of those that it concerns.
    """
    best, words, most = dict(weights), None, _num_fitting(weights, own)
    for prefix in _prefixes(weights):
        inside = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        fitting = _num_fitting(inside, own)
        if fitting > most and 2 * fitting >= len(inside):
            rest = {name: value for name, value in weights.items() if not name.startswith(prefix)}
            best, words, most = {**rest, **inside}, f"{prefix!r} taken away from {len(inside)} names", fitting
    for prefix in _prefixes(own):
        inside = {f"{prefix}{name}": value for name, value in weights.items()}
        fitting = _num_fitting(inside, own)
        if fitting > most and 2 * fitting >= len(inside):
            best, words, most = inside, f"{prefix!r} put before {len(inside)} names", fitting
    return best, words


def _num_fitting(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
    return sum(name in own and own[name].shape == value.shape for name, value in weights.items())


def _prefixes(names: Iterable[str]) -> list[str]:
    """Yield prefixes of one and two parts, in the order in which they come."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        for length in (1, 2):
            if len(parts) > length:
                found[".".join(parts[:length]) + "."] = None
    return list(found)


def _weights(content: Mapping[str, Any]) -> tuple[str, Weights] | None:
    for key in WEIGHTS:
        state = tensors_of(content.get(key))
        if state is not None:
            return key, without_wrappers(state)
    parts = {
        str(key): without_wrappers(state) for key in content if _is_part(key) and (state := tensors_of(content[key]))
    }
    if len(parts) == 1:
        return next(iter(parts.items()))
    together = {
        f"{key.removesuffix('_state_dict')}.{name}": value
        for key, state in parts.items()
        for name, value in state.items()
    }
    return (" + ".join(parts), together) if parts else None


def _is_part(key: Any) -> bool:
    """Return whether a key may hold the weights of a part of the model, as ``encoder_state_dict`` does."""
    reserved = (*AVERAGES, *OPTIMIZERS, *SCHEDULERS, *SCALERS)
    return isinstance(key, str) and key.endswith("_state_dict") and key not in reserved


def _average(value: Any, weights: Weights) -> Weights | None:
    """Return averaged weights, at the top of ``value`` or one below, if they are the average of ``weights``."""
    inside = value.values() if isinstance(value, Mapping) else ()
    for candidate in (value, *inside):
        state = tensors_of(candidate)
        average = without_wrappers(state) if state is not None else {}
        if average.keys() == weights.keys():
            return average
    return None


def _first(content: Mapping[str, Any], names: Iterable[str]) -> tuple[str | None, Any]:
    return next(((name, content[name]) for name in names if content.get(name) is not None), (None, None))


def _single(values: Sequence[Any]) -> Mapping[str, Any] | None:
    return _mapping(values[0]) if len(values) == 1 else None


def _mapping(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def _count(value: Any) -> int | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def _names(value: Any) -> tuple[str, ...] | None:
    is_list = isinstance(value, list | tuple) and bool(value) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_list else None


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    plain = {
        str(name): value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        for name, value in values.items()
    }
    return {name: float(value) for name, value in plain.items() if isinstance(value, int | float)}


def _finished_epochs_of_lightning(content: Mapping[str, Any]) -> int | None:
    """Return the finished epochs: Lightning's ``epoch`` counts them in a file saved after the fit, and is one less in
    one that a callback saved.
    """
    node: Any = content.get("loops")
    for key in ("fit_loop", "epoch_progress", "current", "processed"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return _count(node)
