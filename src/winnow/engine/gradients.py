"""Gradients after the backward passes of a step: their norms, and which parameters should have one but have none."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from winnow.checkpoints.state_dicts import shortened, top_modules
from winnow.errors import UntrainedError

logger = logging.getLogger(__name__)

Norms = Mapping[str, float | None]
"""The gradient norm of each parameter by name; None for one that no backward pass reached."""


@dataclass(frozen=True)
class Gradients:
    """``groups`` holds the norms of what the optimizer trains, by the names of its groups; ``frozen`` those of parameters that
    it does not train and that have a gradient all the same."""

    groups: Mapping[str, Norms]
    frozen: Mapping[str, float]

    @property
    def norms(self) -> dict[str, float | None]:
        """Return the gradient norms of all trained parameters."""
        return {name: norm for norms in self.groups.values() for name, norm in norms.items()}

    def merged(self, later: Gradients) -> Gradients:
        """Return the larger norm of either step, a number before None."""
        groups = {
            group: {name: _larger(norm, later.groups[group][name]) for name, norm in norms.items()}
            for group, norms in self.groups.items()
        }
        return Gradients(groups, {**self.frozen, **later.frozen})


@torch.no_grad()
def read_gradients(model: nn.Module, optimizer: Optimizer) -> Gradients:
    """Return the norms as they stand after a backward pass; waits for the device once, changes nothing."""
    named = dict(model.named_parameters())
    trained = {name for group in optimizer.param_groups for name in group["tensors"]}
    reached = [(name, parameter.grad) for name, parameter in named.items() if parameter.grad is not None]
    values: dict[str, float] = {}
    if reached:
        stacked = torch.stack([norm.float() for norm in torch._foreach_norm([gradient for _, gradient in reached])])
        values = dict(zip([name for name, _ in reached], stacked.tolist(), strict=True))
    groups: dict[str, dict[str, float | None]] = {}
    for group in optimizer.param_groups:  # two have one name where training.no_decay split it
        groups.setdefault(str(group["name"]), {}).update({name: values.get(name) for name in group["tensors"]})
    return Gradients(groups, {name: norm for name, norm in values.items() if name not in trained})


def joint_norm(norms: Norms) -> float | None:
    """Return the norm over several parameters; None if none of them was reached."""
    reached = [norm for norm in norms.values() if norm is not None]
    return math.hypot(*reached) if reached else None


@dataclass(frozen=True)
class GradientFindings:
    """``errors`` say what can't be meant, ``warnings`` what seldom is; empty where all is as it should be."""

    errors: list[str]
    warnings: list[str]


def judge(gradients: Gradients, zero_is_none: bool) -> GradientFindings:
    """Return what is wrong with ``gradients``: a group without any, a frozen parameter with one, single parameters that
    none reached.

    ``zero_is_none`` counts a group whose gradients are all exactly 0 as one without, which is sure after several steps
    only: behind a factor that starts at 0 they are 0 in the first.
    """
    errors: list[str] = []
    warnings: list[str] = []
    for group, norms in gradients.groups.items():
        unreached = [name for name, norm in norms.items() if norm is None]
        zero = [name for name, norm in norms.items() if norm == 0]
        if len(unreached) == len(norms):
            errors.append(
                f"parameter group {group!r} gets no gradient: the loss does not depend on {shortened(norms)}; freeze what is "
                "not used (training.freeze), or see why the loss does not reach it"
            )
        elif len(unreached) + len(zero) == len(norms):
            message = f"parameter group {group!r} gets gradients of exactly 0: {shortened(norms)}"
            (errors if zero_is_none else warnings).append(message)
        else:
            share = f"of {len(norms)} parameters of group {group!r} get"
            if unreached:
                warnings.append(
                    f"{len(unreached)} {share} no gradient and stay as they are: {shortened(unreached)}; an unused head? "
                    "training.freeze says that it is meant"
                )
            if zero and zero_is_none:
                warnings.append(f"{len(zero)} {share} gradients of exactly 0: {shortened(zero)}")
    if gradients.frozen:
        errors.append(
            f"{len(gradients.frozen)} frozen parameters got a gradient: {shortened(gradients.frozen)}; the optimizer does not "
            "train them, so something thawed them after training.freeze"
        )
    return GradientFindings(errors, warnings)


def judge_modules(gradients: Gradients) -> list[str]:
    """Return an error for each module at the top of the model that trains, none of whose parameters gets a gradient
    other than 0, though it is no parameter group of its own.
    """
    norms = gradients.norms
    alone = {frozenset(names) for names in gradients.groups.values()}
    return [
        f"module {module!r} gets no gradient: the loss depends on none of its {len(names)} parameters "
        f"({shortened(names)}); freeze it if that is meant (training.freeze)"
        for module, names in top_modules(norms).items()
        if not any(norms[name] for name in names) and frozenset(names) not in alone
    ]


class FirstLook:
    """Looks once at the gradients of a run's first step that has something to learn from.

    ``required`` makes an error of what ``judge`` calls one, in a new run; else, and in a resumed one, it is a warning.
    """

    def __init__(self, model: nn.Module, required: bool) -> None:
        self._model = model
        self._required = required
        self._is_new: bool | None = None

    def __call__(self, optimizer: Optimizer, can_learn: bool, step: int) -> bool:
        """Return whether it has seen enough; ``can_learn`` says whether the step's batches hold anything to learn from.

        Raises UntrainedError.
        """
        if self._is_new is None:
            self._is_new = step == 0
        if not can_learn:  # heads of boxes rightly get no gradient from images without
            return False
        gradients = read_gradients(self._model, optimizer)
        findings = judge(gradients, zero_is_none=False)
        if findings.errors and self._required and self._is_new:
            raise UntrainedError(
                "; ".join(findings.errors) + " (training.require_gradients=false makes a warning of this)"
            )
        for message in [*findings.errors, *findings.warnings]:
            logger.warning("%s", message)
        shown = {group: joint_norm(norms) for group, norms in gradients.groups.items()}
        logger.info(
            "gradient norms of step %d: %s",
            step + 1,
            ", ".join(f"{group} {'none' if norm is None else f'{norm:.4g}'}" for group, norm in shown.items()),
        )
        return True


def _larger(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
