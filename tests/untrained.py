"""Users' own models that don't train as they look: an unused head, a head behind a gate that starts at 0, frozen parameters
that something thaws, an operation that is not deterministic."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from winnow.builders import builder
from winnow.families.detection.models.fcos import FcosTask
from winnow.families.detection.models.fcos_tiny import FcosTinySettings, fcos_tiny


class SpareHead(nn.Module):
    """Two layers that something may be computed by."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.outer = nn.Linear(4, 1)


def with_spare_head(task: FcosTask) -> FcosTask:
    task.model.spare = SpareHead()
    return task


@builder(FcosTinySettings)
def unused_head(*arguments: Any, **values: Any) -> FcosTask:
    """Return a head that the loss does not depend on."""
    return with_spare_head(fcos_tiny(*arguments, **values))


@builder(FcosTinySettings)
def half_used_head(*arguments: Any, **values: Any) -> FcosTask:
    """Build a head of which only the outer layer's bias."""
    task = with_spare_head(fcos_tiny(*arguments, **values))
    plain = task.losses
    task.losses = lambda *given: plain(*given) | {"loss_spare": task.model.spare.outer.bias.square().sum()}
    return task


@builder(FcosTinySettings)
def gated_head(*arguments: Any, **values: Any) -> FcosTask:
    """Return a head whose last layer starts at 0, so that the one before gets gradients of 0 in the first step."""
    task = with_spare_head(fcos_tiny(*arguments, **values))
    spare = task.model.spare
    nn.init.zeros_(spare.outer.weight)
    plain = task.losses
    task.losses = lambda *given: plain(*given) | {"loss_spare": spare.outer(spare.inner(torch.ones(4))).sum()}
    return task


@builder(FcosTinySettings)
def undetermined(*arguments: Any, **values: Any) -> FcosTask:
    """Return losses with an operation that has no deterministic kernel, on a CPU either."""
    task = fcos_tiny(*arguments, **values)
    plain = task.losses

    def losses(*given: Any) -> Any:
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
        return plain(*given)

    task.losses = losses
    return task


@builder(FcosTinySettings)
def thawed(*arguments: Any, **values: Any) -> FcosTask:
    """Return what was frozen trains again as soon as the model runs; the optimizer does not know."""
    task = fcos_tiny(*arguments, **values)
    plain = task.forward

    def forward(batch: Any) -> Any:
        task.model.requires_grad_(True)
        return plain(batch)

    task.forward = forward
    return task
