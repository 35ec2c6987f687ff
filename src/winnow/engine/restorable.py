"""What a checkpoint must hold for a run to go on from it: all of it is checked before anything of the run is touched."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from winnow.engine.seeding import rng_state, set_rng_state
from winnow.engine.step import TrainStep
from winnow.errors import CheckpointError

Count = Annotated[int, Field(ge=0, le=2**53)]
_SHOWN = 10


class _Part(BaseModel):
    """A part of a checkpoint. Keys of later versions may stand beside those that are known."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True, extra="allow")


class _Best(_Part):
    metric: str
    value: float
    epoch: Count
    step: Count


class _Cost(_Part):
    images: Count
    images_640: float
    seconds: float


class _Sums(_Part):
    num_steps: Count
    sums: dict[str, Tensor]


class _StepCounters(_Part):
    nonfinite: Count
    nonfinite_in_a_row: Count
    skipped: Count = 0
    held_back: Count = 0


class _Progress(_Part):
    sample: Count
    mode: Literal["min", "max"]
    evaluations_without_gain: Count
    best_metrics: dict[str, float] = Field(default_factory=dict)
    evaluation: dict[str, float] = Field(default_factory=dict)
    reached: float | None = None
    cost: _Cost
    interval: _Sums
    epoch_losses: _Sums
    step_counters: _StepCounters
    rng_ranks: list[dict[str, Any]] = Field(default_factory=list)


class _Group(_Part):
    name: str
    tensors: list[str]
    params: list[int]
    lr: float


class _Optimizer(_Part):
    state: dict[int, dict[str, Any]]
    param_groups: list[_Group]


class _Average(_Part):
    num_updates: Count
    weights: dict[str, Tensor]


class _Resumed(_Part):
    path: str
    epoch: Count
    step: Count


class _Metadata(_Part):
    resumed_from: list[_Resumed] = Field(default_factory=list)


class _Content(_Part):
    epoch: Count
    step: Count
    metric: str
    metrics: dict[str, float]
    best: _Best | None
    classes: list[str]
    metadata: _Metadata
    model_state_dict: dict[str, Tensor]
    training_state_dict: dict[str, Tensor] = Field(default_factory=dict)
    ema_state_dict: _Average | None
    optimizer_state_dict: _Optimizer
    scaler_state_dict: dict[str, float | int] | None
    rng: dict[str, Any]
    progress: _Progress

    @model_validator(mode="after")
    def _hold_back_only_steps_that_were(self) -> Self:
        held_back = self.progress.step_counters.held_back
        if held_back > self.step:
            raise ValueError(f"progress.step_counters.held_back is {held_back}, more than the {self.step} steps")
        return self


def require_content(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError where an entry of a checkpoint of winnow's is missing or of another kind than winnow writes."""
    try:
        _Content.model_validate(dict(checkpoint))
    except ValidationError as error:
        found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise CheckpointError(_listed(f"{path} does not hold what a checkpoint does", found)) from None


def require_restorable(checkpoint: Mapping[str, Any], path: Path, step: TrainStep) -> None:
    """Raise CheckpointError where the content of a checkpoint of this very run can't be loaded into ``step``: weights and
    averages of another shape or kind, moments that the optimizer can't go on with, random numbers that no generator takes."""
    own = step.task.model.state_dict()
    odd = list(_odd_tensors("model_state_dict", checkpoint["model_state_dict"], own))
    if "training_state_dict" in checkpoint:
        odd += _odd_tensors("training_state_dict", checkpoint["training_state_dict"], own)
    if checkpoint["ema_state_dict"] is not None:
        odd += _odd_tensors("ema_state_dict.weights", checkpoint["ema_state_dict"]["weights"], own)
    for name in ("interval", "epoch_losses"):
        sums = checkpoint["progress"][name]["sums"]
        odd += [
            f"progress.{name}.sums.{key}: {_kind(value)}, not float ()"
            for key, value in sums.items()
            if _kind(value) != "float ()"
        ]
    odd += _odd_moments(checkpoint["optimizer_state_dict"], step.optimizer)
    wanted = set(step.scaler.state_dict()) if checkpoint["scaler_state_dict"] else set()
    odd += [f"scaler_state_dict lacks {name}" for name in sorted(wanted - set(checkpoint["scaler_state_dict"] or ()))]
    if odd:
        raise CheckpointError(_listed(f"{path} can't be gone on from", odd))
    for name, state in (("rng", checkpoint["rng"]), *_ranks(checkpoint)):
        reason = why_no_rng_state(state)
        if reason is not None:
            raise CheckpointError(f"{path} can't be gone on from: {name} is no state of random generators: {reason}")


def why_no_rng_state(state: Any) -> str | None:
    """Return why ``set_rng_state`` does not take ``state``, None where it does. The generators stay as they are."""
    own = rng_state()
    try:
        set_rng_state(state)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        set_rng_state(own)
    return None


def _ranks(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for index, state in enumerate(checkpoint["progress"].get("rng_ranks", [])):
        yield f"progress.rng_ranks[{index}]", state


def _odd_tensors(place: str, saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield how the tensors of ``saved`` differ from the model's in name, shape or kind of number."""
    for name in sorted(saved.keys() | own.keys()):
        old, new = (_kind(state[name]) if name in state else "absent" for state in (saved, own))
        if old != new:
            yield f"{place}.{name}: {old} in the file, {new} here"


def _kind(tensor: Tensor) -> str:
    """Return shape and kind of number: how many bits a number has may differ."""
    kind = "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "int"
    return f"{kind} {tuple(tensor.shape)}"


def _odd_moments(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> Iterator[str]:
    """Yield which moments are not of their parameter's shape, or can't be gone on with: each kind of them is tried."""
    groups = saved["param_groups"]
    numbers = [[len(group["params"]) for group in side] for side in (groups, optimizer.param_groups)]
    if numbers[0] != numbers[1]:
        yield f"optimizer_state_dict.param_groups hold {numbers[0]} parameters, {numbers[1]} here"
        return
    tried: set[Any] = set()
    known: set[int] = set()
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        for index, parameter in zip(group["params"], own["params"], strict=True):
            known.add(index)
            state = saved["state"].get(index, {})
            place = f"optimizer_state_dict.state[{index}]"
            wrong = [name for name, value in state.items() if not _fits(value, parameter)]
            yield from (
                f"{place}.{name}: {_of(state[name])}, its parameter is {tuple(parameter.shape)}" for name in wrong
            )
            signature = (group["name"], *kinds_of(state, parameter))
            if state and not wrong and signature not in tried:
                tried.add(signature)
                reason = why_no_step(optimizer, own, parameter, state)
                if reason is not None:
                    yield f"{place}: {type(optimizer).__name__} can't go on with {', '.join(map(str, state))}: {reason}"
    yield from (
        f"optimizer_state_dict.state[{index}] belongs to no parameter" for index in saved["state"].keys() - known
    )


def _fits(value: Any, parameter: Tensor) -> bool:
    """Tell whether a moment is a number, or one per entry of its parameter, as far as can be told without the optimizer."""
    if isinstance(value, Tensor):
        return value.numel() == 1 or value.shape == parameter.shape or value.dim() != parameter.dim()
    return value is None or isinstance(value, int | float | list | dict | tuple)


def kinds_of(state: Mapping[str, Any], parameter: Tensor) -> list[tuple[str, str, bool]]:
    """Return of each moment its name, its type and whether it has the parameter's shape: what one of a kind stands for."""
    return sorted(
        (str(name), type(value).__name__, isinstance(value, Tensor) and value.shape == parameter.shape)
        for name, value in state.items()
    )


def _of(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"{type(value).__name__} {value!r:.60}"


def why_no_step(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: Tensor, state: Mapping[str, Any]
) -> str | None:
    """Return why an optimizer of this kind fails to take a step with ``state``, tried on a copy; None where it takes it, or can't
    be made from its settings alone."""
    known = inspect.signature(type(optimizer)).parameters
    settings = {name: group.get(name, value) for name, value in optimizer.defaults.items() if name in known}
    probe = torch.nn.Parameter(parameter.detach().cpu().clone())
    probe.grad = torch.zeros_like(probe)
    try:
        twin = type(optimizer)([probe], **settings)
    except (RuntimeError, TypeError, ValueError):
        return None
    copied = {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
    try:
        twin.load_state_dict({"state": {0: copied}, "param_groups": twin.state_dict()["param_groups"]})
        twin.step()
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _listed(title: str, lines: list[str]) -> str:
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([f"{title}:", *lines[:_SHOWN], *more])
