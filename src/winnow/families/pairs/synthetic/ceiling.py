"""What a single modality can reach on drawn pairs: an oracle that finds all that it shows, and can't tell more than it shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from winnow.families.detection.batch import DetectionBatch, Detections, Target
from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.pairs.records import CATEGORY_IDS, CLASS_NAMES
from winnow.families.pairs.synthetic.drawing import DrawnPair
from winnow.families.pairs.synthetic.figures import Figure


def oracle(figures: Sequence[Figure], modality: int, rng: np.random.Generator) -> Detections:
    """Return every figure that visible (0) or infrared (1) alone shows and can't tell from a person, with its exact box, in
    random order."""
    boxes = [figure.box for figure in figures if figure.looks_like_a_person_in(modality)]
    scores = np.sort(rng.random(len(boxes)))[::-1]
    order = rng.permutation(len(boxes))
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)[torch.from_numpy(order)],
        scores=torch.tensor(scores.copy(), dtype=torch.float32),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
    )


def ceiling(pairs: Sequence[DrawnPair], modality: int, seed: int = 0) -> float:
    """Return the AP50 of ``oracle`` on ``pairs``: what a detector that sees visible (0) or infrared (1) alone can reach."""
    metric = CocoAp(CLASS_NAMES, CATEGORY_IDS, score_threshold=0.0, max_detections=100, backend="hotcoco")
    rng = np.random.default_rng(seed)
    for number, pair in enumerate(pairs):
        found = oracle(pair.figures, modality, rng)
        boxes = torch.tensor([person.box for person in pair.persons], dtype=torch.float32).reshape(-1, 4)
        labels, crowd = torch.zeros(len(boxes), dtype=torch.int64), torch.zeros(len(boxes), dtype=torch.bool)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        size = pair.infrared.shape[0], pair.infrared.shape[1]
        target = Target(number, boxes, labels, size, size, boxes, labels, areas, crowd)
        nothing = torch.empty((1, 0, *size), dtype=torch.uint8)
        metric.update([found], DetectionBatch(nothing, torch.ones((1, *size), dtype=torch.bool), [target]))
    return metric.compute()["map_50"]
