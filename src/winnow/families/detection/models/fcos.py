"""FCOS, a dense one-stage detector, as a task: torchvision's head on any backbone, with losses normalised over the
whole step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import batched_nms, clip_boxes_to_image, generalized_box_iou_loss, sigmoid_focal_loss

from winnow.families.detection.batch import DetectionBatch, Detections, Target
from winnow.families.detection.models.fcos_matching import Grid, Matches, make_grid, match_locations
from winnow.families.detection.models.pixels import PixelNormalizer
from winnow.protocols import Metric

CANDIDATES_PER_LEVEL = 1000
NMS_IOU = 0.6


@dataclass(frozen=True)
class FcosOutputs:
    """Head outputs for a batch of B images with L locations: ``logits`` (B, L, classes), ``distances`` (B, L, 4) left,
    top, right, bottom in strides, ≥ 0, ``centerness`` (B, L) logits."""

    logits: Tensor
    distances: Tensor
    centerness: Tensor


class FcosModel(nn.Module):
    """uint8 images in, head outputs out.

    ``backbone`` maps (B, 3, H, W) to an OrderedDict of maps with ``head``'s channels, finest first, each of ceil(H /
    stride) rows.
    """

    def __init__(self, backbone: nn.Module, head: FCOSHead) -> None:
        super().__init__()
        self.normalize = PixelNormalizer()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor, pixel_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features: OrderedDict[str, Tensor] = self.backbone(self.normalize(images, pixel_mask))
        outputs = self.head(list(features.values()))
        return outputs["cls_logits"], outputs["bbox_regression"], outputs["bbox_ctrness"].squeeze(-1)


class FcosTask:
    """FCOS (Tian et al. 2020, arXiv 2006.09214) on ``model``, whose levels have the given ``strides`` in pixels.

    The losses are torchvision's, but divided by the positive locations of the whole step, not of one micro-batch or
    rank; they are computed in float32 whatever autocast says.
    """

    counted_by: Mapping[str, str] = dict.fromkeys(("loss_class", "loss_box", "loss_centerness"), "positive_locations")
    class_rows: Mapping[str, int] = {f"head.classification_head.cls_logits.{part}": 1 for part in ("weight", "bias")}

    def __init__(
        self,
        model: FcosModel,
        strides: Sequence[int],
        classes: Sequence[str],
        new_metric: Callable[[], Metric],
        max_detections: int,
        score_threshold: float,
    ) -> None:
        self.model: nn.Module = model
        self.classes = list(classes)
        self._strides = tuple(strides)
        self._new_metric = new_metric
        self._max_detections = max_detections
        self._score_threshold = score_threshold

    def new_metric(self) -> Metric:
        return self._new_metric()

    def forward(self, batch: DetectionBatch) -> FcosOutputs:
        return FcosOutputs(*self.model(batch.images, batch.pixel_mask))

    def loss_count(self, batch: DetectionBatch) -> dict[str, float]:
        """Return the number of positive locations. Cheap (boxes, not locations, are gone through); waits for the GPU if the
        targets are there."""
        return {"positive_locations": float(self._matches(batch).wins.sum())}

    def losses(self, outputs: FcosOutputs, batch: DetectionBatch, count: Mapping[str, float]) -> dict[str, Tensor]:
        """Return ``loss_class`` (focal), ``loss_box`` (GIoU) and ``loss_centerness``, each weighted 1."""
        with torch.autocast(outputs.logits.device.type, enabled=False):
            terms = fcos_losses(outputs, self._matches(batch))
        return {name: term / count["positive_locations"] for name, term in terms.items()}

    def _matches(self, batch: DetectionBatch) -> Matches:
        """Match locations once for the count and the losses, where both look at the batch on one device."""
        key = (match_locations, self._strides)
        if key not in batch.memo:
            batch.memo[key] = match_locations(batch, self._strides)
        matches: Matches = batch.memo[key]
        return matches

    def exportable(self) -> nn.Module:
        """Return the network and its predictions of one picture for ``winnow export``."""
        from winnow.families.detection.models.exported import ExportedFcos

        return ExportedFcos(self.model, self._strides, self._max_detections, self._score_threshold)

    @torch.no_grad()
    def predictions(self, outputs: FcosOutputs, batch: DetectionBatch) -> list[Detections]:
        """Return per image the best ``max_detections`` above ``score_threshold`` after non-maximum suppression within
        classes.

        The score is √(class · centerness), as in torchvision. Locations on padding predict nothing. A GPU is waited for twice
        per batch, for the numbers of candidates and for what is left of them, and once per image in the suppression.
        """
        grid = make_grid((batch.images.shape[2], batch.images.shape[3]), self._strides, outputs.logits.device)
        sizes = torch.tensor([target.size for target in batch.targets]).to(outputs.logits.device, non_blocking=True)
        candidates, counts = self._above_threshold(best_candidates(outputs, grid, sizes))
        left = [
            self._unsuppressed(rows[:count], target)
            for rows, count, target in zip(candidates, counts, batch.targets, strict=True)
        ]
        found = torch.cat(left).cpu().split([len(rows) for rows in left])
        return [
            Detections(rows[:, :4] * rows.new_tensor(target.scale * 2), rows[:, 4], rows[:, 5].long())
            for rows, target in zip(found, batch.targets, strict=True)
        ]

    def _above_threshold(self, candidates: Tensor) -> tuple[Tensor, list[int]]:
        """Return ``candidates`` (B, N, 6) with those above the threshold first, in the order in which they came, and how many
        of each image that are."""
        above = candidates[..., 4] > self._score_threshold
        order = above.int().argsort(dim=1, descending=True, stable=True)
        return candidates.gather(1, order[..., None].expand_as(candidates)), above.sum(dim=1).tolist()

    def _unsuppressed(self, candidates: Tensor, target: Target) -> Tensor:
        """Return the best of one image's ``candidates`` (N, 6) after non-maximum suppression, boxes clipped to the image."""
        boxes, scores, labels = clip_boxes_to_image(candidates[:, :4], target.size), candidates[:, 4], candidates[:, 5]
        keep = batched_nms(boxes, scores, labels.long(), NMS_IOU)[: self._max_detections]
        return torch.cat([boxes, candidates[:, 4:]], dim=1)[keep]


def best_candidates(outputs: FcosOutputs, grid: Grid, sizes: Tensor) -> Tensor:
    """Return the rows (x1, y1, x2, y2, score, label) of each level's ``CANDIDATES_PER_LEVEL`` best, (B, candidates, 6), boxes in
    pixels of images whose ``sizes`` (B, 2), height and width, exclude padding; what lies on padding scores 0."""
    scores = (outputs.logits.float().sigmoid() * outputs.centerness.float().sigmoid()[..., None]).sqrt()
    boxes = decode_boxes(outputs.distances.float(), grid.points, grid.strides)
    on_image = (grid.points[:, 0] < sizes[:, 1:]) & (grid.points[:, 1] < sizes[:, :1])
    return _best_of_levels(boxes, torch.where(on_image[..., None], scores.nan_to_num(nan=0.0), 0.0), grid)


def _best_of_levels(boxes: Tensor, scores: Tensor, grid: Grid) -> Tensor:
    """Return the rows (x1, y1, x2, y2, score, label) of each level's ``CANDIDATES_PER_LEVEL`` best, (B, candidates, 6), from
    boxes (B, L, 4) and scores (B, L, classes)."""
    num_classes = scores.shape[2]
    chosen_scores, chosen = [], []
    start = 0
    for level_scores in scores.split(grid.level_sizes, dim=1):
        flat = level_scores.flatten(1)
        values, places = flat.topk(torch.sym_min(CANDIDATES_PER_LEVEL, flat.shape[1]))
        chosen_scores.append(values)
        chosen.append(places + start)
        start += flat.shape[1]
    values, places = torch.cat(chosen_scores, dim=1), torch.cat(chosen, dim=1)
    found = boxes.gather(1, (places // num_classes)[..., None].expand(-1, -1, 4))
    return torch.cat([found, values[..., None], (places % num_classes)[..., None].float()], dim=-1)


def decode_boxes(distances: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Return boxes (…, 4) xyxy in pixels from distances (…, 4) in strides, points (…, 2) and strides (…,) in pixels."""
    sides = distances * strides[..., None]
    return torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)


def fcos_losses(outputs: FcosOutputs, matches: Matches) -> dict[str, Tensor]:
    """Return the sums (not means) of FCOS's three losses over a batch, float32 scalars; a NaN in gives a NaN out."""
    logits, distances, centerness = (x.float() for x in (outputs.logits, outputs.distances, outputs.centerness))
    num_locations, num_classes = logits.shape[1:]
    weight = matches.wins.float()
    place = matches.image * num_locations + matches.location
    truth = torch.zeros_like(logits).flatten().index_add(0, place * num_classes + matches.label, weight)
    loss_class = sigmoid_focal_loss(logits.flatten(), truth, reduction="sum")

    predicted = decode_boxes(distances.flatten(0, 1)[place], matches.points, matches.stride)
    loss_box = (generalized_box_iou_loss(predicted, matches.boxes) * weight).sum()

    target = torch.where(matches.wins, _centerness(matches.points, matches.boxes), 0.0)
    loss_centerness = F.binary_cross_entropy_with_logits(centerness.flatten()[place], target, weight, reduction="sum")
    return {"loss_class": loss_class, "loss_box": loss_box, "loss_centerness": loss_centerness}


def _centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """Return √(min/max of left and right · min/max of top and bottom): 1 at a box's centre, 0 on its sides, (P,)."""
    before, after = points - boxes[:, :2], boxes[:, 2:] - points
    ratios = torch.minimum(before, after) / torch.maximum(before, after)
    return ratios.prod(dim=-1).sqrt()
