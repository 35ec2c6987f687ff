"""One Faster R-CNN on a feature pyramid: torchvision's proposal network and box heads, with samplers of our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from winnow.families.pairs.models.sampling import SeededSampler

OUTPUT_SIZE = 7
"""Rows and columns of a region's features."""
CANONICAL_SCALE, CANONICAL_LEVEL = 224, 4
"""Regions of 224 px are pooled from the level of stride 2⁴ (Lin et al. 2017)."""


@dataclass(frozen=True)
class DetectorShape:
    """What a detector is made of: ``channels`` of each level, the ``strides`` of the levels that regions are pooled
    from, the anchors' sizes, one per level of the pyramid, and ratios of height to width, the units of the box head,
    how many anchors and proposals of an image are sampled, how finely regions are, and how many proposals are kept in
    training and prediction."""

    channels: int
    strides: Sequence[int]
    anchor_sizes: Sequence[float]
    anchor_ratios: Sequence[float]
    head_channels: int
    rpn_samples: int
    roi_samples: int
    sampling_ratio: int
    max_proposals: int


class PairDetector(nn.Module):
    """The ``rpn`` and the ``roi_heads`` of one Faster R-CNN (Ren et al. 2015, arXiv 1506.01497)."""

    def __init__(self, shape: DetectorShape, num_classes: int, score_threshold: float, max_detections: int) -> None:
        super().__init__()
        anchors = AnchorGenerator(
            tuple((size,) for size in shape.anchor_sizes), (tuple(shape.anchor_ratios),) * len(shape.anchor_sizes)
        )
        kept = dict.fromkeys(("training", "testing"), shape.max_proposals)
        self.rpn = RegionProposalNetwork(
            anchors, RPNHead(shape.channels, anchors.num_anchors_per_location()[0]), fg_iou_thresh=0.7,
            bg_iou_thresh=0.3, batch_size_per_image=shape.rpn_samples, positive_fraction=0.5,
            pre_nms_top_n={name: 2 * count for name, count in kept.items()}, post_nms_top_n=kept, nms_thresh=0.7,
        )  # fmt: skip
        self.roi_heads = RoIHeads(
            region_pool(shape.strides, shape.sampling_ratio),
            TwoMLPHead(shape.channels * OUTPUT_SIZE**2, shape.head_channels),
            FastRCNNPredictor(shape.head_channels, num_classes + 1), fg_iou_thresh=0.5, bg_iou_thresh=0.5,
            batch_size_per_image=shape.roi_samples, positive_fraction=0.25, bbox_reg_weights=None,
            score_thresh=score_threshold, nms_thresh=0.5, detections_per_img=max_detections,
        )  # fmt: skip
        self.rpn.fg_bg_sampler = SeededSampler(shape.rpn_samples, 0.5)
        self.roi_heads.fg_bg_sampler = SeededSampler(shape.roi_samples, 0.25)

    @contextmanager
    def drawing_from(self, generators: Sequence[torch.Generator]) -> Iterator[None]:
        """Have anchors and proposals drawn from ``generators``, one per image."""
        for sampler in self.samplers:
            sampler.generators = generators
        try:
            yield
        finally:
            for sampler in self.samplers:
                sampler.generators = ()

    @property
    def samplers(self) -> tuple[SeededSampler, SeededSampler]:
        return self.rpn.fg_bg_sampler, self.roi_heads.fg_bg_sampler


def region_pool(strides: Sequence[int], sampling_ratio: int) -> MultiScaleRoIAlign:
    """Build what pools regions from the levels ``"0"``, ``"1"`` … of a pyramid. Their ``strides``, powers of two, are
    set: torchvision guesses them from the first batch that it sees, wrongly where padding is large."""
    pool = MultiScaleRoIAlign([str(level) for level in range(len(strides))], OUTPUT_SIZE, sampling_ratio)
    pool.scales = [1 / stride for stride in strides]
    first, last = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
    pool.map_levels = initLevelMapper(first, last, CANONICAL_SCALE, CANONICAL_LEVEL)
    return pool
