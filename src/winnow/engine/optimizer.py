"""Which parameters train, with what learning rate and weight decay: freezing and parameter groups by name patterns, and what
does not decay by the type of its module."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from winnow.engine.settings import ParamGroup
from winnow.errors import ConfigError

logger = logging.getLogger(__name__)

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""What normalises in torch and has weights; ``_NormBase`` is the class of all batch and instance norms, lazy ones too."""
_NAMED_NORM = re.compile(r"Norm(\dd)?$")


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Stop the parameters whose names match from training; ConfigError for a pattern that matches none."""
    names = dict(model.named_parameters())
    for pattern in patterns:
        matched = [name for name in names if re.search(pattern, name)]
        if not matched:
            raise ConfigError(_no_match("training.freeze", pattern, list(names)))
        for name in matched:
            names[name].requires_grad_(False)
        logger.info("frozen by %r: %d parameter tensors", pattern, len(matched))
    if not any(parameter.requires_grad for parameter in names.values()):
        raise ConfigError(f"training.freeze={list(patterns)} freezes every parameter: nothing is left to train")


def build_optimizer(
    factory: Callable[[list[dict[str, Any]]], Optimizer],
    model: nn.Module,
    groups: Sequence[ParamGroup] | None,
    lr: float,
    no_decay: Collection[str] = (),
) -> Optimizer:
    """Return the optimizer over all trainable parameters.

    ``lr`` is the base learning rate; each torch group also carries ``name``, ``base_lr``, the rate that the schedule
    multiplies, and ``tensors``, its parameters' names. What no pattern matches forms the group ``default``. With ``no_decay``
    (training.no_decay) a group becomes two torch groups of its name: what decays, then, marked by ``no_decay``, what doesn't.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    members: dict[str, dict[str, nn.Parameter]] = {
        name: {} for name in [*(group.name for group in groups or ()), "default"]
    }
    for name, parameter in trainable:
        first = next((group.name for group in groups or () if re.search(group.pattern, name)), "default")
        members[first][name] = parameter
    torch_groups = []
    for index, group in enumerate(groups or ()):
        if not members[group.name]:
            key = f"training.param_groups[{index}].pattern"
            raise ConfigError(_no_match(key, group.pattern, [name for name, _ in trainable]))
        base_lr = group.lr if group.lr is not None else lr * (1.0 if group.lr_scale is None else group.lr_scale)
        settings: dict[str, Any] = {
            **_named(group.name, members[group.name]),
            "lr": base_lr,
            "base_lr": base_lr,
        }
        if group.weight_decay is not None:
            settings["weight_decay"] = group.weight_decay
        torch_groups.append(settings)
    if members["default"]:
        torch_groups.append({**_named("default", members["default"]), "lr": lr, "base_lr": lr})
    torch_groups = _split(torch_groups, undecayed(model, no_decay))
    for settings in torch_groups:
        count = sum(parameter.numel() for parameter in settings["params"])
        logger.info(
            "parameter group %-12s %9d parameters, lr %.3g%s", settings["name"], count, settings["lr"],
            ", no weight decay" if settings.get("no_decay") else "",
        )  # fmt: skip
    try:
        return factory(torch_groups)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"training.optimizer is refused by its class: {error} (~training.optimizer.KEY takes a key away)"
        ) from error


def undecayed(model: nn.Module, kinds: Collection[str]) -> set[str]:
    """Return the names of the parameters that are of one of ``kinds``.

    ``norm``: what belongs to a normalisation itself, its scale and its shift: torch's batch, instance, layer, group and RMS
    norms and classes made from them, and a class of any library whose name ends in Norm (``LlamaRMSNorm``, ``MyNorm2d``).
    ``bias``: what its module calls ``bias``, ``…_bias`` or ``bias_…`` (``in_proj_bias``, ``bias_ih_l0``), the shifts of
    normalisations among them.
    """
    return {
        f"{prefix}.{own}" if prefix else own
        for prefix, module in model.named_modules(remove_duplicate=False)
        for own, _ in module.named_parameters(recurse=False, remove_duplicate=False)
        if ("norm" in kinds and _is_norm(module))
        or ("bias" in kinds and (own.startswith("bias_") or own.endswith("_bias") or own == "bias"))
    }


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or _NAMED_NORM.search(type(module).__name__) is not None


def _split(groups: Sequence[dict[str, Any]], undecayed: Collection[str]) -> list[dict[str, Any]]:
    """Return each group in two where it holds both kinds, the second without weight decay; one without such is as it was."""
    parts = []
    for group in groups:
        members = dict(zip(group["tensors"], group["params"], strict=True))
        spared = {name: parameter for name, parameter in members.items() if name in undecayed}
        decaying = {name: parameter for name, parameter in members.items() if name not in undecayed}
        if decaying:
            parts.append({**group, **_named(group["name"], decaying)})
        if spared:
            parts.append({**group, **_named(group["name"], spared), "weight_decay": 0.0, "no_decay": True})
    return parts


def scaled_lr(lr: float, base_batch_size: int | None, samples_per_step: int) -> float:
    """Scale by the linear rule of Goyal et al. 2017; off if ``base_batch_size`` is None."""
    if base_batch_size is None:
        return lr
    scaled = lr * samples_per_step / base_batch_size
    logger.info("lr %.3g scaled to %.3g: %d samples per step for %d", lr, scaled, samples_per_step, base_batch_size)
    return scaled


def _named(name: str, members: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    return {"params": list(members.values()), "name": name, "tensors": list(members)}


def _no_match(key: str, pattern: str, names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{key}={pattern!r} matches none of the {len(names)} parameters it may match; they are named like {shown}"
