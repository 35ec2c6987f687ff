"""Moments of another program's optimizer, for the parameters of ours: whose they are, or why that can't be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from winnow.engine.restorable import kinds_of, why_no_step

_HOW_NOT_WHAT = {"foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay"}
"""Settings of torch's optimizers that some of its versions lack and that say nothing of the moments."""


class NotTakenOverError(Exception):
    """The moments can't be taken over; the message says why."""


def moments_by_name(saved: Mapping[str, Any], optimizer: Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return parameter name → its optimizer state in the file.

    Whose moments they are is told by the names in the file where it has them, by the order of the model's parameters in
    a file with one group, and by the shapes of whole groups in one with several. Raises NotTakenOverError if they can't
    be told, or if any moment has another shape than its parameter.
    """
    groups, state = saved.get("param_groups"), saved.get("state")
    if not isinstance(groups, Sequence) or not groups or not all(map(_is_group, groups)):
        raise NotTakenOverError("it is laid out as no optimizer of torch's")
    if not isinstance(state, Mapping) or not all(isinstance(entry, Mapping) for entry in state.values()):
        raise NotTakenOverError("it is laid out as no optimizer of torch's")
    if not state:
        raise NotTakenOverError("it holds no moments")
    kind = {key for key in optimizer.defaults if key not in _HOW_NOT_WHAT}
    other = sorted(kind.symmetric_difference(set(groups[0]) & _KNOWN_KEYS) & _KNOWN_KEYS)
    amsgrad = groups[0].get("amsgrad")
    # A tensor, which a file of no optimizer's may hold, has no single answer to a comparison.
    if other or isinstance(amsgrad, Tensor) or amsgrad != optimizer.defaults.get("amsgrad"):
        raise NotTakenOverError(
            f"it is of another kind than {type(optimizer).__name__} ({', '.join(other) or 'amsgrad'} differ)"
        )
    parameters = dict(model.named_parameters())
    found: dict[str, dict[str, Any]] = {}
    tried: set[Any] = {()}
    for index, name in _names_of(groups, state, optimizer, parameters).items():
        entry = state.get(index, {})
        if not parameters[name].requires_grad:
            continue
        wrong = [key for key, value in entry.items() if _is_moment(value) and value.shape != parameters[name].shape]
        if wrong:
            raise NotTakenOverError(
                f"{wrong[0]} of {name} has shape {tuple(entry[wrong[0]].shape)}, the parameter {tuple(parameters[name].shape)}"
            )
        kinds = tuple(kinds_of(entry, parameters[name]))
        reason = why_no_step(optimizer, optimizer.defaults, parameters[name], entry) if kinds not in tried else None
        tried.add(kinds)
        if reason is not None:
            raise NotTakenOverError(
                f"{type(optimizer).__name__} can't go on with {', '.join(map(str, entry))} ({reason})"
            )
        found[name] = dict(entry)
    return found


def state_for(optimizer: Optimizer, moments: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what ``optimizer.load_state_dict`` takes: its own groups as they are, with these ``moments``."""
    own = optimizer.state_dict()
    names = {
        index: name
        for group, saved in zip(optimizer.param_groups, own["param_groups"], strict=True)
        for index, name in zip(saved["params"], group["tensors"], strict=True)
    }
    state = {index: moments[name] for index, name in names.items() if moments.get(name)}
    return {**own, "state": state}


_KNOWN_KEYS = {
    "betas", "momentum", "dampening", "nesterov", "alpha", "rho", "lambd", "etas", "step_sizes", "lr_decay", "amsgrad",
}  # fmt: skip


def _is_group(group: Any) -> bool:
    """Return whether parameters are numbered, and named by texts where they are named, as torch saves them."""
    if not isinstance(group, Mapping) or not _are(group.get("params"), int):
        return False
    return all(_are(group.get(key) or [], str) for key in ("tensors", "param_names"))


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(one, kind) for one in values)


def _names_of(
    groups: Sequence[Mapping[str, Any]],
    state: Mapping[Any, Any],
    optimizer: Optimizer,
    parameters: Mapping[str, nn.Parameter],
) -> dict[int, str]:
    named = [group.get("tensors") or group.get("param_names") for group in groups]
    if all(
        names is not None and len(names) == len(group["params"]) for names, group in zip(named, groups, strict=True)
    ):
        pairs = {
            index: name
            for names, group in zip(named, groups, strict=True)
            for index, name in zip(group["params"], names or (), strict=True)
        }
        if (
            {name for name, value in parameters.items() if value.requires_grad}
            <= set(pairs.values())
            <= set(parameters)
        ):
            return pairs
    if len(groups) == 1:
        indices, trained = groups[0]["params"], [name for name, value in parameters.items() if value.requires_grad]
        names = list(parameters) if len(indices) == len(parameters) else trained
        return _in_order(indices, names, "parameters")
    taken: dict[int, str] = {}
    left = [list(group["tensors"]) for group in optimizer.param_groups]
    for group in groups:
        shapes = [_shape(state.get(index, {})) for index in group["params"]]
        fitting = [names for names in left if [tuple(parameters[name].shape) for name in names] == shapes]
        if len(fitting) != 1:
            raise NotTakenOverError(
                f"its {len(groups)} parameter groups of {[len(group['params']) for group in groups]} tensors can't be told apart "
                f"by their shapes among the {len(optimizer.param_groups)} here (training.param_groups)"
            )
        left.remove(fitting[0])
        taken |= _in_order(group["params"], fitting[0], "parameters of the group")
    if left:
        raise NotTakenOverError(f"it has {len(groups)} parameter groups, {len(optimizer.param_groups)} are here")
    return taken


def _in_order(indices: Sequence[int], names: Sequence[str], what: str) -> dict[int, str]:
    if len(indices) != len(names):
        raise NotTakenOverError(f"it is for {len(indices)} {what}, {len(names)} are here")
    return dict(zip(indices, names, strict=True))


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...] | None:
    return next((tuple(value.shape) for value in entry.values() if _is_moment(value)), None)


def _is_moment(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0
