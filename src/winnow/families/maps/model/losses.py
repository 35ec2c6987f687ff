"""The loss of set prediction for lines: focal classes, L1 of ordered points and directions of edges, on every decoder layer."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor

from winnow.families.maps.model.matching import LineTargets, Matches, MatchingCosts, match
from winnow.families.set_prediction import focal_sums
from winnow.settings import Settings

EDGE_EPSILON_M2 = 1e-2
"""Added to squared lengths of edges, in m². The gradient of an edge of 1 cm is then below 10 per metre; with 1e-6 it is 100."""


class CriterionSettings(Settings):
    """Matching costs, loss weights and the focal shape."""

    class_cost: NonNegativeFloat
    points_cost: NonNegativeFloat
    class_weight: NonNegativeFloat
    points_weight: NonNegativeFloat
    direction_weight: NonNegativeFloat
    focal_alpha: Annotated[float, Field(ge=0, le=1)]
    focal_gamma: NonNegativeFloat

    @model_validator(mode="after")
    def _some_cost_counts(self) -> Self:
        if self.class_cost == self.points_cost == 0:
            raise ValueError("class_cost and points_cost are both 0, which matches lines at random")
        return self


class MapCriterion:
    """Weighted loss terms ``loss_class``, ``loss_points``, ``loss_direction`` of the last decoder layer, and ``…_aux`` summed
    over the others, which learn the same.

    * class: the sum of the focal loss over queries and classes, ÷ positives;
    * points: the sum of |Δx| + |Δy| over the points of matched lines, as parts of the region's sides, ÷ positives;
    * direction: the sum over the edges of matched lines of 1 − cos of the angle between true and found edge, ÷ positives.

    ``positives`` is what the caller counts over the whole step: the true lines that a query can be matched with.
    """

    def __init__(self, settings: CriterionSettings) -> None:
        self.settings = settings
        self.costs = MatchingCosts(
            settings.class_cost, settings.points_cost, settings.focal_alpha, settings.focal_gamma
        )

    def __call__(
        self, logits: Tensor, points: Tensor, targets: LineTargets, sides: Tensor, positives: float
    ) -> dict[str, Tensor]:
        """Compute the terms of ``logits`` (L, B, I, C) and ``points`` (L, B, I, P, 2); ``sides`` (2,) of the region in metres. In
        float32 whatever autocast says. Any non-finite input makes the sum non-finite."""
        with torch.autocast(logits.device.type, enabled=False):
            logits, points = logits.float(), points.float()
            matches = match(logits, points, targets, self.costs)
            layers = torch.arange(len(logits), device=logits.device)[:, None]
            found = points[layers, matches.samples, matches.queries]
            true = targets.orders[matches.samples, matches.orders]
            # Nothing is added to finite points; a NaN in an unmatched line surfaces, and without any true line the point heads
            # still have a gradient (of zero), which ranks wait for.
            watched = 0 * points.sum(dim=(1, 2, 3, 4))
            by_layer = {
                "loss_class": self.settings.class_weight * self._focal(logits, targets, matches),
                "loss_points": self.settings.points_weight * ((found - true).abs().sum(dim=(1, 2, 3)) + watched),
                "loss_direction": self.settings.direction_weight * direction_sums(found * sides, true * sides),
            }
        terms = {name: term[-1] / positives for name, term in by_layer.items()}
        if len(logits) > 1:
            terms |= {f"{name}_aux": term[:-1].sum() / positives for name, term in by_layer.items()}
        return terms

    def _focal(self, logits: Tensor, targets: LineTargets, matches: Matches) -> Tensor:
        """Return (L,) sums of the sigmoid focal loss over samples, queries and classes."""
        truth = torch.zeros_like(logits)
        layers = torch.arange(len(logits), device=logits.device)[:, None]
        truth[layers, matches.samples, matches.queries, targets.labels[matches.samples, matches.lines]] = 1
        return focal_sums(logits, truth, self.settings.focal_alpha, self.settings.focal_gamma)


def direction_sums(found: Tensor, true: Tensor, epsilon: float = EDGE_EPSILON_M2) -> Tensor:
    """Return (L,): over all edges of (L, M, P, 2) lines in metres, the sum of 1 − cos between found and true edge."""
    one, other = found.diff(dim=2), true.diff(dim=2)
    lengths = ((one.square().sum(-1) + epsilon) * (other.square().sum(-1) + epsilon)).sqrt()
    return (1 - (one * other).sum(-1) / lengths).sum(dim=(1, 2))
