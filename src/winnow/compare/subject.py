"""One side of a comparison: what a checkpoint, or the run folder that it lies in, says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.folder import checkpoint_in
from winnow.checkpoints.layouts import ForeignCheckpoint, read_foreign, tensors_of, with_frozen_weights
from winnow.checkpoints.seal import is_sealed
from winnow.config.flat import flat
from winnow.config.moved import with_moved_choices, with_moved_targets
from winnow.errors import CheckpointError, ConfigError
from winnow.masking import masked_tree
from winnow.reading import UnreadableError, as_record, parse_json

BEST = "best"


@dataclass(frozen=True)
class Subject:
    """``label``: the path as the user gave it; ``path``: the file that was read; ``kind``: what it is, in words.

    ``config``: dotted keys, None where there is none. ``weights``: those that are evaluated, of a run with EMA the average.
    ``groups``: parameter group of the optimizer → names of its tensors. ``origin``: what it started and was resumed from.
    """

    label: str
    path: Path
    kind: str
    facts: dict[str, Any]
    metrics: dict[str, float]
    objective: tuple[str, str] | None
    config: dict[str, Any] | None
    weights: dict[str, Tensor]
    groups: dict[str, list[str]]
    origin: tuple[str, ...]
    is_foreign: bool = False


def read_subject(given: str, which: str = BEST, frozen_source: str | None = None) -> Subject:
    """Read a checkpoint of winnow's or another program's, or of a run folder its ``which`` (best.pth, where there is
    none last.pth).

    ``frozen_source``: where a file is now that frozen weights were taken from. Raises ConfigError for a folder that
    holds no run, CheckpointError for a file that can't be read, WeightsError where the file with the frozen weights is
    missing or has changed.
    """
    path = Path(given)
    if not path.exists():
        raise ConfigError(f"{given} does not exist; name a checkpoint or a run folder")
    file = checkpoint_in(path, which) if path.is_dir() else path
    folder = path if path.is_dir() else None
    if is_sealed(file):
        return _of_winnow(given, file, folder, frozen_source)
    return _of_another(given, read_foreign(file, "a checkpoint", CheckpointError))


@dataclass(frozen=True)
class _Best:
    metric: str
    value: float
    epoch: int | None = None


@dataclass(frozen=True)
class _Resumed:
    path: str
    epoch: int
    step: int


@dataclass(frozen=True)
class _Metadata:
    choices: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    data_fingerprint: str | None = None
    resumed_from: tuple[_Resumed, ...] = ()


@dataclass(frozen=True)
class _Progress:
    mode: str | None = None
    cost: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Group:
    """``name`` is that of training.param_groups; training.no_decay makes two groups of one name."""

    name: str | None = None
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Optimizer:
    param_groups: tuple[_Group, ...] = ()


@dataclass(frozen=True)
class _Saved:
    """What of a checkpoint of winnow's is shown."""

    epoch: int
    step: int
    timestamp: str | None
    metric: str | None
    model_state_dict: dict[str, Any]
    config: dict[str, Any] | None = None
    classes: tuple[str, ...] | None = None
    metrics: dict[str, float] | None = None
    best: _Best | None = None
    metadata: _Metadata | None = None
    progress: _Progress | None = None
    optimizer_state_dict: _Optimizer | None = None


def _of_winnow(given: str, path: Path, folder: Path | None, frozen_source: str | None) -> Subject:
    content = with_frozen_weights(read_checkpoint(path), path, frozen_source)
    try:
        saved = as_record(_Saved, content)
        weights = tensors_of(saved.model_state_dict)
        if weights is None:
            raise UnreadableError("no _Saved: model_state_dict: Input should be tensors by name")
    except UnreadableError as error:
        raise CheckpointError(f"{path} does not hold what a checkpoint does: {error}") from None
    metadata, progress, best = saved.metadata or _Metadata(), saved.progress or _Progress(), saved.best
    choices = with_moved_choices(metadata.choices, saved.config or {})
    config = flat(masked_tree(with_moved_targets(saved.config or {})))
    cost = {f"cost/{name}": value for name, value in progress.cost.items()}
    found = {f"best/{best.metric.removeprefix('val/')}": best.value} if best else {}
    facts = {
        "epoch": saved.epoch, "step": saved.step, "saved": saved.timestamp,
        **({"status": _status(folder)} if folder is not None else {}),
        "best at epoch": best.epoch if best else None, "seed": metadata.seed,
        "data": metadata.data_fingerprint, "classes": len(saved.classes or ()),
        "averaged (EMA)": content["ema_state_dict"] is not None,
        "composed of": " ".join(f"{group}={choice}" for group, choice in sorted(choices.items())),
    }  # fmt: skip
    return Subject(
        label=given,
        path=path,
        kind=f"{path.name} of a run" if folder is not None else "checkpoint",
        facts=facts,
        metrics={**(saved.metrics or {}), **found, **cost},
        objective=(saved.metric or "", progress.mode) if progress.mode is not None else None,
        config=config or None,
        weights=weights,
        groups=_groups(saved.optimizer_state_dict or _Optimizer()),
        origin=_origin(config, metadata),
    )


def _groups(saved: _Optimizer) -> dict[str, list[str]]:
    """Return group → names of its tensors, those of one name together."""
    groups: dict[str, list[str]] = {}
    for number, group in enumerate(saved.param_groups):
        groups.setdefault(group.name if group.name is not None else str(number), []).extend(group.tensors)
    return groups


def _of_another(given: str, file: ForeignCheckpoint) -> Subject:
    return Subject(
        label=given,
        path=file.path,
        kind=f"another program's file ({file.layout})",
        facts={"epoch": file.epoch, "step": file.step},
        metrics=dict(file.metrics or {}),
        objective=None,
        config=flat(masked_tree(file.config)) if file.config else None,
        weights=file.average or file.weights,
        groups={},
        origin=("not known",),
        is_foreign=True,
    )


def _origin(config: Mapping[str, Any], metadata: _Metadata) -> tuple[str, ...]:
    start = config.get("training.init_from")
    resumed = [f"resumed from {at.path} at epoch {at.epoch}, step {at.step}" for at in metadata.resumed_from]
    if start is not None:
        return (f"started from the weights of {start}", *resumed)
    return tuple(resumed) or ("started afresh",)


def _status(folder: Path) -> str | None:
    try:
        return str(parse_json((folder / "result.json").read_bytes())["status"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
