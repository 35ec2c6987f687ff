"""Hungarian matching of queries to true boxes, for every decoder layer of a batch at once, and the IoU it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from winnow.errors import DataError
from winnow.families.set_prediction import assign

SMALLEST_AREA = 1e-9


@dataclass(frozen=True)
class SetTargets:
    """The true boxes of B images, padded to the largest number N: ``boxes_cxcywh`` (B, N, 4) float32 in fractions of
    the image without its padding, ``labels`` (B, N) int64 in 0…n−1, ``counts`` how many of the N are real."""

    boxes_cxcywh: Tensor
    labels: Tensor
    counts: tuple[int, ...]

    @classmethod
    def from_images(cls, boxes_cxcywh: Sequence[Tensor], labels: Sequence[Tensor]) -> SetTargets:
        return cls(
            pad_sequence([boxes.float().reshape(-1, 4) for boxes in boxes_cxcywh], batch_first=True),
            pad_sequence(list(labels), batch_first=True),
            tuple(len(image_labels) for image_labels in labels),
        )


@dataclass(frozen=True)
class Matches:
    """M pairs in each of L decoder layers: pair m of layer l joins query ``queries[l, m]`` of image ``images[m]`` to
    its true box ``targets[l, m]``. M is Σ min(queries, boxes) over the images, the same in every layer."""

    images: Tensor
    queries: Tensor
    targets: Tensor


@dataclass(frozen=True)
class MatchingCosts:
    """Weights of the three costs and the focal shape of the first (Zhu et al. 2021, Deformable DETR: 2, 5, 2)."""

    class_cost: float
    box_cost: float
    giou_cost: float
    focal_alpha: float
    focal_gamma: float


def corners(boxes_cxcywh: Tensor) -> Tensor:
    """Return (…, 4) boxes as x1, y1, x2, y2 in the unit they came in; not clipped."""
    center, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return GIoU in [−1, 1] of xyxy boxes (…, 4), broadcast against each other (Rezatofighi et al. 2019).

    NaN and inverted boxes give a number or NaN, never an error; boxes without area give a finite value.
    """
    lower, upper = torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])
    inner_lower = torch.maximum(boxes[..., :2], others[..., :2])
    inner_upper = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (inner_upper - inner_lower).clamp(min=0).prod(-1)
    union = (boxes[..., 2:] - boxes[..., :2]).prod(-1) + (others[..., 2:] - others[..., :2]).prod(-1) - intersection
    hull = (upper - lower).prod(-1)
    return intersection / union.clamp(min=SMALLEST_AREA) - (hull - union) / hull.clamp(min=SMALLEST_AREA)


@torch.no_grad()
def match(logits: Tensor, boxes_cxcywh: Tensor, targets: SetTargets, costs: MatchingCosts) -> Matches:
    """Return the cheapest one-to-one assignment per layer and image.

    ``logits`` (L, B, Q, C), ``boxes_cxcywh`` (L, B, Q, 4) as in ``targets``. Float32 whatever autocast says, with one
    copy from the device for all layers. Non-finite costs are matched last: that the loss becomes non-finite is the
    criterion's concern. Raises DataError for a class id outside 0…C−1.
    """
    num_layers, num_classes = logits.shape[0], logits.shape[-1]
    if sum(targets.counts) == 0:
        empty = torch.zeros(num_layers, 0, dtype=torch.int64, device=logits.device)
        return Matches(empty[0], empty, empty)
    with torch.autocast(logits.device.type, enabled=False):
        cost = _pairwise_cost(logits.float(), boxes_cxcywh.float(), targets, costs)
    _check_labels(targets, num_classes)
    return Matches(*assign(cost, targets.counts))


def _pairwise_cost(logits: Tensor, boxes_cxcywh: Tensor, targets: SetTargets, costs: MatchingCosts) -> Tensor:
    """Return costs (L, B, Q, N): only boxes of the same image are compared."""
    probability = logits.sigmoid()
    as_positive = costs.focal_alpha * (1 - probability) ** costs.focal_gamma * F.softplus(-logits)
    as_negative = (1 - costs.focal_alpha) * probability**costs.focal_gamma * F.softplus(logits)
    # A wrong id must reach the check below instead of ending the process by an assertion on the device.
    labels = targets.labels.clamp(0, logits.shape[-1] - 1)
    index = labels[None, :, None].expand(*logits.shape[:3], -1)
    class_cost = (as_positive - as_negative).gather(-1, index)
    predicted, true = boxes_cxcywh[:, :, :, None], targets.boxes_cxcywh[None, :, None]
    box_cost = (predicted - true).abs().sum(-1)
    giou_cost = -generalized_iou(corners(predicted), corners(true))
    return costs.class_cost * class_cost + costs.box_cost * box_cost + costs.giou_cost * giou_cost


def _check_labels(targets: SetTargets, num_classes: int) -> None:
    labels = targets.labels.cpu()
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        image = int(wrong.nonzero()[0, 0])
        raise DataError(
            f"class id {int(labels[wrong][0])} in image {image} of the batch; allowed: 0…{num_classes - 1} "
            "(ids of the data set must be mapped to 0…n−1)"
        )
