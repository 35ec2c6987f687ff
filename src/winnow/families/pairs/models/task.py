"""A Faster R-CNN of pairs as a task, whatever its fusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from winnow.families.detection.batch import Detections
from winnow.families.detection.models.faster_rcnn import (
    behaving_as,
    detections_of,
    image_list,
    in_float32,
    torchvision_targets,
)
from winnow.families.pairs.batch import MODALITIES, AlignedDetections, PairBatch
from winnow.families.pairs.models.detector import PairDetector
from winnow.families.pairs.models.macl import AlignmentHead, ProjectedPairs, beside_chance, macl_sum
from winnow.families.pairs.models.network import PairFeatures, PairNetwork
from winnow.families.pairs.models.pooling import pooled
from winnow.protocols import Metric

TERMS = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
MACL_TERM = "loss_macl"
POOLING_IOU = 0.5


class PairFasterRcnnTask:
    """Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) on pairs; with two detectors each learns from all boxes by terms
    of its own, and only their predictions are pooled.

    Losses are sums over sampled anchors and proposals, divided by the samples that the images of the whole step may give. Each
    image's are drawn from a generator that its seed in the batch starts, so a loss is a function of (seed, epoch, index) whatever
    the micro-batches and ranks. Proposals, boxes and losses are computed in float32; autocast is used by the backbones and the
    fusion only.
    """

    def __init__(
        self,
        model: PairNetwork,
        classes: Sequence[str],
        new_metric: Callable[[], Metric],
        late_score: str,
        max_detections: int,
        macl_weight: float = 0.0,
    ) -> None:
        self.model: nn.Module = model
        self.classes = list(classes)
        self._new_metric = new_metric
        self._late_score = late_score
        self._max_detections = max_detections
        self._macl_weight = macl_weight
        self._detector_names = tuple(model.detectors)
        self.counted_by: Mapping[str, str] = {
            self._term(term, name): "images" for name in self._detector_names for term in TERMS
        } | ({} if model.alignment is None else {MACL_TERM: "objects"})
        self.class_rows: Mapping[str, int] = {
            f"detectors.{name}.roi_heads.box_predictor.{layer}.{part}": rows
            for name in self._detector_names
            for layer, rows in (("cls_score", 1), ("bbox_pred", 4))
            for part in ("weight", "bias")
        }

    def new_metric(self) -> Metric:
        return self._new_metric()

    def forward(self, batch: PairBatch) -> PairFeatures:
        features: PairFeatures = self.model(batch.images, batch.pixel_mask, batch.present)
        return features

    def loss_count(self, batch: PairBatch) -> dict[str, float]:
        """Return the number of pairs, and with MACL that of the objects that both of their images show."""
        count = {"images": float(batch.num_samples)}
        if self._network.alignment is not None:
            count["objects"] = float(sum(int(shown.sum()) for shown in shown_in_both(batch)))
        return count

    def losses(self, outputs: PairFeatures, batch: PairBatch, count: Mapping[str, float]) -> dict[str, Tensor]:
        """Return ``loss_objectness``, ``loss_rpn_box_reg``, ``loss_classifier`` and ``loss_box_reg``, each weighted 1;
        of two detectors each with its modality's name behind; with MACL ``loss_macl`` too, times its weight."""
        generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds]
        terms: dict[str, Tensor] = {}
        with torch.autocast(batch.images.device.type, enabled=False):
            images, targets = image_list(batch), torchvision_targets(batch)
            for name, detector in self._detectors():
                features = in_float32(outputs.detectors[name])
                with behaving_as(True, detector), detector.drawing_from(generators):
                    proposals, rpn_losses = detector.rpn(images, features, targets)
                    _, box_losses = detector.roi_heads(features, proposals, images.image_sizes, targets)
                for losses, sampler in zip((rpn_losses, box_losses), detector.samplers, strict=True):
                    share = sampler.num_drawn / (sampler.batch_size_per_image * count["images"])
                    terms |= {self._term(term, name): value * share for term, value in losses.items()}
            if self._network.alignment is not None:
                macl = macl_sum(self._network.alignment, self._projected(self._network.alignment, outputs, batch))
                terms[MACL_TERM] = macl * (self._macl_weight / count["objects"])
        return terms

    def _projected(self, head: AlignmentHead, outputs: PairFeatures, batch: PairBatch) -> ProjectedPairs:
        pyramids = {name: in_float32(pyramid) for name, pyramid in outputs.modalities.items()}
        boxes = [target["boxes"] for target in torchvision_targets(batch)]
        return ProjectedPairs.of(
            head, pyramids, boxes, shown_in_both(batch), image_list(batch).image_sizes, batch.seeds
        )

    @torch.no_grad()
    def predictions(self, outputs: PairFeatures, batch: PairBatch) -> list[Detections]:
        """Return the boxes of the detector; of two, pooled ones, of which a modality that is absent has none. With MACL, and
        where the truth is known, they are ``AlignedDetections``."""
        found = self._found(outputs, batch)
        head = self._network.alignment
        if head is None or not any(len(target.boxes) for target in batch.targets):
            return found
        with torch.autocast(batch.images.device.type, enabled=False):
            return AlignedDetections(found, beside_chance(head, self._projected(head, outputs, batch)).cpu())

    def _found(self, outputs: PairFeatures, batch: PairBatch) -> list[Detections]:
        found = []
        with torch.autocast(batch.images.device.type, enabled=False):
            images = image_list(batch)
            for name, detector in self._detectors():
                features = in_float32(outputs.detectors[name])
                with behaving_as(False, detector):
                    proposals, _ = detector.rpn(images, features)
                    found.append(detector.roi_heads(features, proposals, images.image_sizes)[0])
        if len(found) == 1:
            return detections_of(found[0], batch)
        present = batch.present[:, [MODALITIES.index(name) for name in self._detector_names]].tolist()
        return detections_of(
            [self._pooled(pair, is_there) for *pair, is_there in zip(*found, present, strict=True)], batch
        )

    def _pooled(self, found: Sequence[Mapping[str, Tensor]], is_there: Sequence[bool]) -> dict[str, Tensor]:
        left = [
            one if wanted else {name: values[:0] for name, values in one.items()}
            for one, wanted in zip(found, is_there, strict=True)
        ]
        return pooled(left, self._late_score, POOLING_IOU, self._max_detections)

    def _detectors(self) -> list[tuple[str, PairDetector]]:
        detectors = self._network.detectors
        return [(name, cast(PairDetector, detectors[name])) for name in self._detector_names]

    @property
    def _network(self) -> PairNetwork:
        return cast(PairNetwork, self.model)

    def _term(self, term: str, detector: str) -> str:
        return term if len(self._detector_names) == 1 else f"{term}_{detector}"


def shown_in_both(batch: PairBatch) -> list[Tensor]:
    """Return per pair (N,) bool: which objects both images show. Where nobody knows they all count, unless an image is absent."""
    present = batch.present.all(dim=1)
    if batch.seen_in is not None:
        return [seen.all(dim=1) & here for seen, here in zip(batch.seen_in, present, strict=True)]
    return [here.expand(len(target.boxes)) for target, here in zip(batch.targets, present, strict=True)]
