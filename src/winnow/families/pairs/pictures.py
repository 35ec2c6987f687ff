"""Pictures of pairs: the visible and the infrared image side by side, each with the same boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from winnow.families.detection.batch import Detections, Target
from winnow.families.detection.pictures import draw_grid
from winnow.families.pairs.batch import PairBatch

Shown = tuple[list[np.ndarray], list[Target]]


def draw_pairs(seen: Sequence[tuple[PairBatch, list[Detections]]], class_names: Sequence[str], path: Path) -> None:
    """Write a PNG to ``path``: two images per pair, as the model saw them without padding, with true and found boxes."""
    images: list[np.ndarray] = []
    targets: list[Target] = []
    for batch, _ in seen:
        of_batch = _side_by_side(batch, batch.targets)
        images, targets = images + of_batch[0], targets + of_batch[1]
    found = [one for _, detections in seen for one in detections for _ in range(2)]
    draw_grid(images, found, targets, class_names, path)


def draw_training_pairs(batches: Sequence[PairBatch], class_names: Sequence[str], path: Path, most: int) -> None:
    """Write the first ``most`` pairs of ``batches`` as the model gets them, with their boxes, to ``path``."""
    images: list[np.ndarray] = []
    targets: list[Target] = []
    for batch in batches:
        of_batch = _side_by_side(batch, [_as_trained(target) for target in batch.targets])
        images, targets = images + of_batch[0], targets + of_batch[1]
    draw_grid(images[: 2 * most], None, targets[: 2 * most], class_names, path)


def _as_trained(target: Target) -> Target:
    """Return the target with what it is trained on as its truth."""
    boxes, labels = target.boxes.cpu(), target.labels.cpu()
    is_crowd = torch.zeros(len(boxes), dtype=torch.bool)
    return replace(
        target, original_size=target.size, original_boxes=boxes, original_labels=labels, original_crowd=is_crowd
    )


def _side_by_side(batch: PairBatch, targets: Sequence[Target]) -> Shown:
    """Return the visible and the infrared image (H, W, 3) of each pair in turn, with the target of each."""
    pixels = batch.images.permute(0, 2, 3, 1).cpu().numpy()
    images: list[np.ndarray] = []
    shown: list[Target] = []
    for row, target in enumerate(targets):
        pair = pixels[row, : target.size[0], : target.size[1]]
        images += [pair[..., :3], np.repeat(pair[..., 3:], 3, axis=2)]
        shown += [replace(target, image_id=f"{target.image_id} {name}") for name in ("visible", "infrared")]
    return images, shown
