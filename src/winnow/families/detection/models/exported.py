"""Detectors as modules that look at one picture, in operations that torch's exporter takes: what their tasks predict.

Each obeys what ``protocols.Task`` says of ``exportable``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrMultiscaleDeformableAttention,
    MultiScaleDeformableAttention,
)

from winnow.families.detection.models.deformable_detr import best_boxes
from winnow.families.detection.models.fcos import NMS_IOU, FcosOutputs, best_candidates
from winnow.families.detection.models.fcos_matching import make_grid

Found = tuple[Tensor, Tensor, Tensor]


class ExportedFcos(nn.Module):
    """FCOS on one picture."""

    def __init__(self, model: nn.Module, strides: Sequence[int], max_detections: int, score_threshold: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self._strides = tuple(strides)
        self._max_detections = max_detections
        self._score_threshold = score_threshold

    def forward(self, images: Tensor, pixel_mask: Tensor, size: Tensor, original_size: Tensor) -> Found:
        outputs = FcosOutputs(*self.model(images, pixel_mask))
        grid = make_grid((images.shape[2], images.shape[3]), self._strides, images.device)
        rows = _above(best_candidates(outputs, grid, size[None])[0], self._score_threshold)
        limits = size.flip(0).float().repeat(2)
        boxes = torch.minimum(rows[:, :4].clamp(min=0), limits)
        # Boxes of different classes are moved apart, so that they don't suppress each other, as torchvision's batched_nms does.
        apart = rows[:, 5] * (limits.max() + 1)
        keep = nms(boxes + apart[:, None], rows[:, 4], NMS_IOU)[: self._max_detections]
        scale = (original_size / size).flip(0).repeat(2)
        return boxes[keep] * scale, rows[keep, 4], rows[keep, 5].long()


class ExportedDeformableDetr(nn.Module):
    """Deformable DETR on one picture, its attention in pure PyTorch."""

    def __init__(self, model: nn.Module, max_detections: int, score_threshold: float) -> None:
        super().__init__()
        network: Any = copy.deepcopy(model)
        self.model = network
        self._max_detections = max_detections
        self._score_threshold = score_threshold
        for module in network.modules():
            if isinstance(module, DeformableDetrMultiscaleDeformableAttention):
                module.__class__ = _AnyShapeAttention
                module.attn = MultiScaleDeformableAttention()
        network.model.encoder.get_reference_points = reference_points

    def forward(self, images: Tensor, pixel_mask: Tensor, size: Tensor, original_size: Tensor) -> Found:
        rows = _above(best_boxes(self.model(images, pixel_mask), self._max_detections)[0], self._score_threshold)
        return rows[:, :4] * original_size.flip(0).float().repeat(2), rows[:, 4], rows[:, 5].long()


class _AnyShapeAttention(DeformableDetrMultiscaleDeformableAttention):
    """transformers' layer with the maps' shapes as values of the graph: the tensor that it is given is a constant there."""

    def forward(self, *inputs: Any, **named: Any) -> tuple[Tensor, Tensor]:
        sides = [
            torch.scalar_tensor(side, dtype=torch.int64) for shape in named["spatial_shapes_list"] for side in shape
        ]
        named["spatial_shapes"] = torch.stack(sides).reshape(-1, 2)
        attended: tuple[Tensor, Tensor] = super().forward(*inputs, **named)
        return attended


def reference_points(
    shapes: Sequence[tuple[int, int]], valid_ratios: Tensor, device: torch.device | None = None
) -> Tensor:
    """Return what transformers' encoder returns under this name, for maps of any ``shapes``: its ``torch.linspace`` takes the
    lengths of the one picture that is traced for all."""
    levels = []
    for level, (height, width) in enumerate(shapes):
        rows, columns = (torch.arange(n, dtype=valid_ratios.dtype, device=device) + 0.5 for n in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        x = x.reshape(-1)[None] / (valid_ratios[:, None, level, 0] * width)
        y = y.reshape(-1)[None] / (valid_ratios[:, None, level, 1] * height)
        levels.append(torch.stack((x, y), -1))
    return torch.cat(levels, 1)[:, :, None] * valid_ratios[:, None]


def _above(rows: Tensor, threshold: float) -> Tensor:
    """Return those of ``rows`` (N, 6) whose score is above ``threshold``."""
    return rows[(rows[:, 4] > threshold).nonzero().flatten()]
