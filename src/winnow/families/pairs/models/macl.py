"""Modal-aware contrastive learning (MACL): the same object looks alike to the network in both modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torchvision.ops import box_iou

from winnow.families.pairs.models.detector import OUTPUT_SIZE, region_pool
from winnow.families.pairs.models.fusion import Pyramid

WIDTHS = (128, 64, 128)
NUM_BACKGROUND = 8
MAX_OVERLAP = 0.3
"""What overlaps an object by more is neither it nor a negative of it."""
TEMPERATURE, LOWEST, HIGHEST = 0.07, 0.01, 1.0
_BACKGROUND_SEED = 0x3AC1
"""Added to a pair's seed, so that its background is not drawn by the numbers of its anchors and proposals."""


class AlignmentHead(nn.Module):
    """One projection for both modalities of the features of a region: to 128, 64 and 128, with LayerNorm between, of length 1.

    Its weights are drawn from the seed that torch's generator was given, by a generator of its own: what is built beside
    it begins as without it. The ``temperature`` is learnt, from 0.07, and never leaves 0.01–1.
    """

    def __init__(self, channels: int, strides: Sequence[int], sampling_ratio: int) -> None:
        super().__init__()
        self.pool = region_pool(strides, sampling_ratio)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed())
            first, second, last = WIDTHS
            self.projection = nn.Sequential(
                nn.Linear(channels * OUTPUT_SIZE**2, first), nn.LayerNorm(first), nn.ReLU(),
                nn.Linear(first, second), nn.LayerNorm(second), nn.ReLU(),
                nn.Linear(second, last),
            )  # fmt: skip
        # By how much its logarithm differs from the start's: weight decay then pulls to the start, not to 1.
        self.log_temperature = nn.Parameter(torch.zeros(()))

    @property
    def temperature(self) -> Tensor:
        return (TEMPERATURE * self.log_temperature.exp()).clamp(LOWEST, HIGHEST)

    def forward(self, pyramid: Pyramid, boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return (N, 128) of length 1 for the regions ``boxes``, (n, 4) for each image, in their order."""
        return normalize(self.projection(self.pool(pyramid, list(boxes), list(sizes)).flatten(1)), dim=1)


def background_boxes(boxes: Tensor, size: tuple[int, int], seed: int) -> Tensor:
    """Return (8, 4) boxes in an image of ``size`` (height, width), each as large as one of its objects ``boxes``, at places that
    a generator started with ``seed`` draws; none where there is no object."""
    if len(boxes) == 0:
        return boxes.new_empty((0, 4))
    generator = torch.Generator().manual_seed((seed + _BACKGROUND_SEED) % 2**63)
    chosen = torch.randint(len(boxes), (NUM_BACKGROUND,), generator=generator).to(boxes.device)
    place = torch.rand(NUM_BACKGROUND, 2, generator=generator).to(boxes.device)
    extent = (boxes[:, 2:] - boxes[:, :2])[chosen]
    corner = place * (extent.new_tensor([size[1], size[0]]) - extent).clamp(min=0)
    return torch.cat([corner, corner + extent], dim=1)


def contrast(visible: Tensor, infrared: Tensor, regions: Tensor, is_positive: Tensor, temperature: Tensor) -> Tensor:
    """Return InfoNCE summed over the objects of one pair, the mean of both directions.

    ``visible`` and ``infrared`` (N, D) belong to ``regions`` (N, 4), of which the first are the objects; ``is_positive`` (n,)
    says of which both images are to be told to agree. An object's candidates are all regions of the other image, less
    those that overlap it by more than 0.3 and are not it.
    """
    rows = is_positive.nonzero()[:, 0]
    is_masked = masked_candidates(regions, rows)
    total = visible.new_zeros(())
    for asked, answers in ((visible, infrared), (infrared, visible)):
        scores = (asked[rows] @ answers.T / temperature).masked_fill(is_masked, -math.inf)
        total = total + cross_entropy(scores, rows, reduction="sum") / 2
    return total


def masked_candidates(regions: Tensor, rows: Tensor) -> Tensor:
    """Return (n, N): whether a region overlaps that of row ``rows[n]`` by more than 0.3 without being it."""
    is_masked = box_iou(regions[rows], regions) > MAX_OVERLAP
    is_masked[torch.arange(len(rows), device=rows.device), rows] = False
    return is_masked


def chance(regions: Tensor, is_positive: Tensor) -> Tensor:
    """Return what ``contrast`` is where nothing tells regions apart: ln of the candidates, summed over the objects."""
    return (~masked_candidates(regions, is_positive.nonzero()[:, 0])).sum(dim=1).float().log().sum()


class ProjectedPairs(NamedTuple):
    """The regions of each pair, its objects before the background, with their projections from both images, and which of the
    objects (n,) are positives."""

    regions: Sequence[Tensor]
    visible: Sequence[Tensor]
    infrared: Sequence[Tensor]
    positives: Sequence[Tensor]

    @classmethod
    def of(
        cls,
        head: AlignmentHead,
        pyramids: Mapping[str, Pyramid],
        boxes: Sequence[Tensor],
        positives: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        seeds: Sequence[int],
    ) -> ProjectedPairs:
        """Draw the background of each pair from its seed, and project everything."""
        regions = [
            torch.cat([of_pair, background_boxes(of_pair, size, seed)])
            for of_pair, size, seed in zip(boxes, sizes, seeds, strict=True)
        ]
        lengths = [len(one) for one in regions]
        visible, infrared = (head(pyramids[name], regions, sizes).split(lengths) for name in ("visible", "infrared"))
        return cls(regions, visible, infrared, positives)


def macl_sum(head: AlignmentHead, pairs: ProjectedPairs) -> Tensor:
    """Return the contrastive loss summed over the objects of all pairs; 0, on the weights' graph, where there are none."""
    zero = sum((part.sum() * 0.0 for part in (*pairs.visible, *pairs.infrared)), head.log_temperature * 0.0)
    terms = [
        contrast(one, other, where, is_positive, head.temperature)
        for where, one, other, is_positive in zip(*pairs, strict=True)
        if is_positive.any()
    ]
    return sum(terms, zero)


def beside_chance(head: AlignmentHead, pairs: ProjectedPairs) -> Tensor:
    """Return per pair (B, 3) float32: how many objects are positives, their contrastive loss, and what it is by chance."""
    numbers = torch.zeros(len(pairs.regions), 3, device=head.log_temperature.device)
    for row, where, one, other, is_positive in zip(numbers, *pairs, strict=True):
        if is_positive.any():
            row[0] = is_positive.sum()
            row[1] = contrast(one, other, where, is_positive, head.temperature)
            row[2] = chance(where, is_positive)
    return numbers
