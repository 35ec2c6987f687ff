"""What a detector finds on pictures without annotations: pictures as a batch in, boxes with names and the data set's ids out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from winnow.families.detection.batch import DetectionBatch, Detections, Target
from winnow.families.detection.data import PAD_MULTIPLE
from winnow.families.detection.pictures import draw_found
from winnow.families.detection.samples import Collate, Sample
from winnow.families.detection.transforms import resize


@dataclass(frozen=True)
class FoundBoxes:
    """What was found on one picture of ``size`` (height, width) px: ``boxes`` (N, 4) float32 xyxy in its pixels, ``scores`` (N,)
    in descending order, ``labels`` (N,) int64 from 0, and for each box its class's name and the data set's own category id."""

    name: str
    size: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...]
    category_ids: tuple[int, ...]

    def record(self) -> dict[str, Any]:
        """Return what COCO's ``images`` hold of the picture, and under ``annotations`` what its results hold of each box (x, y,
        width and height in px)."""
        boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in self.boxes.tolist()]
        found = zip(boxes, self.scores.tolist(), self.category_ids, strict=True)
        return {
            "file_name": self.name,
            "height": self.size[0],
            "width": self.size[1],
            "annotations": [
                {"category_id": number, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, "score": score}
                for box, score, number in found
            ],
        }

    def draw(self, pixels: np.ndarray, min_score: float) -> Image.Image:
        """Draw the boxes of at least ``min_score`` with class and score onto ``pixels`` (H, W, 3) uint8."""
        return draw_found(pixels, self.boxes, self.scores, self.names, min_score)


def batch_of_pictures(
    pixels: Sequence[np.ndarray], names: Sequence[str], image_size: int, square: bool
) -> DetectionBatch:
    """Return pictures (H, W, 3) uint8 as evaluation sees images: resized, padded at the right and bottom, without truth."""
    samples = []
    for picture, name in zip(pixels, names, strict=True):
        image, _ = resize(torch.from_numpy(picture).permute(2, 0, 1), torch.zeros(0, 4), image_size, square)
        samples.append(Sample(image, without_truth(name, image, (picture.shape[0], picture.shape[1]))))
    batch = Collate(PAD_MULTIPLE)(samples)
    assert isinstance(batch, DetectionBatch)
    return batch


def without_truth(name: str, image: Tensor, original_size: tuple[int, int]) -> Target:
    """Return the target of ``image`` (C, H, W), made of a picture of which nothing is known but its name and size."""
    none = torch.zeros(0, dtype=torch.int64)
    return Target(
        name, torch.zeros(0, 4), none, (image.shape[1], image.shape[2]), original_size,
        torch.zeros(0, 4), none, torch.zeros(0), none.bool(),
    )  # fmt: skip


def found_boxes(
    predictions: Sequence[Detections], batch: DetectionBatch, classes: Sequence[str], category_ids: Sequence[int]
) -> list[FoundBoxes]:
    """Return the detections of a batch with names and category ids."""
    return [
        FoundBoxes(
            name=str(target.image_id),
            size=target.original_size,
            boxes=found.boxes,
            scores=found.scores,
            labels=found.labels,
            names=tuple(classes[label] for label in found.labels.tolist()),
            category_ids=tuple(category_ids[label] for label in found.labels.tolist()),
        )
        for found, target in zip(predictions, batch.targets, strict=True)
    ]
