"""The loss of set prediction: focal classification, L1 and GIoU of the matched boxes, on every decoder layer."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor

from winnow.families.detection.models.matcher import Matches, MatchingCosts, SetTargets, corners, generalized_iou, match
from winnow.families.set_prediction import focal_sums
from winnow.settings import Settings


class CriterionSettings(Settings):
    """Matching costs, loss weights and the focal shape; the paper's values are 2, 5, 2 for both, α 0.25 and γ 2."""

    class_cost: NonNegativeFloat
    box_cost: NonNegativeFloat
    giou_cost: NonNegativeFloat
    class_weight: NonNegativeFloat
    box_weight: NonNegativeFloat
    giou_weight: NonNegativeFloat
    focal_alpha: Annotated[float, Field(ge=0, le=1)]
    focal_gamma: NonNegativeFloat
    auxiliary: bool

    @model_validator(mode="after")
    def _some_cost_counts(self) -> Self:
        if self.class_cost == self.box_cost == self.giou_cost == 0:
            raise ValueError("class_cost, box_cost and giou_cost are all 0, which matches boxes at random")
        return self


class SetCriterion:
    """Weighted loss terms of Deformable DETR (Zhu et al. 2021).

    The last decoder layer's terms have the plain names ``loss_ce``, ``loss_bbox``, ``loss_giou``: predictions come from
    that layer, so those curves compare across models of any depth. The earlier layers are summed by kind under
    ``…_aux``: six curves instead of three per layer.
    """

    def __init__(self, settings: CriterionSettings) -> None:
        self.settings = settings
        self.costs = MatchingCosts(
            class_cost=settings.class_cost,
            box_cost=settings.box_cost,
            giou_cost=settings.giou_cost,
            focal_alpha=settings.focal_alpha,
            focal_gamma=settings.focal_gamma,
        )

    def __call__(self, logits: Tensor, boxes_cxcywh: Tensor, targets: SetTargets, count: float) -> dict[str, Tensor]:
        """Compute the loss terms. ``logits`` (L, B, Q, C) and ``boxes_cxcywh`` (L, B, Q, 4) of L decoder layers, last
        one last; ``count`` > 0 divides every term, so terms of micro-batches add up to the term of the whole. Float32
        whatever autocast says. Any non-finite input makes the sum non-finite. Raises DataError if a class id is outside
        0…C−1.
        """
        if not self.settings.auxiliary:
            logits, boxes_cxcywh = logits[-1:], boxes_cxcywh[-1:]
        matches = match(logits, boxes_cxcywh, targets, self.costs)
        with torch.autocast(logits.device.type, enabled=False):
            by_layer = {
                "loss_ce": self.settings.class_weight * self._focal(logits.float(), targets, matches) / count,
                **self._boxes(boxes_cxcywh.float(), targets, matches, count),
            }
        terms = {name: term[-1] for name, term in by_layer.items()}
        if len(logits) > 1:
            terms.update({f"{name}_aux": term[:-1].sum() for name, term in by_layer.items()})
        return terms

    def _focal(self, logits: Tensor, targets: SetTargets, matches: Matches) -> Tensor:
        """Return (L,) sums of the sigmoid focal loss over images, queries and classes (Lin et al. 2017)."""
        truth = torch.zeros_like(logits)
        layers = torch.arange(len(logits), device=logits.device)[:, None]
        truth[layers, matches.images, matches.queries, targets.labels[matches.images, matches.targets]] = 1
        return focal_sums(logits, truth, self.settings.focal_alpha, self.settings.focal_gamma)

    def _boxes(self, boxes: Tensor, targets: SetTargets, matches: Matches, count: float) -> dict[str, Tensor]:
        layers = torch.arange(len(boxes), device=boxes.device)[:, None]
        predicted = boxes[layers, matches.images, matches.queries]
        true = targets.boxes_cxcywh[matches.images, matches.targets]
        # Nothing is added to finite boxes; a NaN in an unmatched box surfaces, and without any true box the box head
        # still has a gradient (of zero), which distributed training waits for.
        watched = 0 * boxes.sum(dim=(1, 2, 3))
        distance = (predicted - true).abs().sum(dim=(1, 2)) + watched
        overlap = (1 - generalized_iou(corners(predicted), corners(true))).sum(dim=1)
        return {
            "loss_bbox": self.settings.box_weight * distance / count,
            "loss_giou": self.settings.giou_weight * overlap / count,
        }
