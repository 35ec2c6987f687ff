"""Small batches of pairs and small pair detectors to test on."""

from functools import partial

import torch
from composed import compose_plain
from detection_parts import batch as detection_batch
from detection_parts import target

from winnow.families.pairs.batch import PairBatch
from winnow.families.pairs.metrics.pair_metric import PairMetric
from winnow.families.pairs.models.pair_faster_rcnn import pair_faster_rcnn_tiny

CLASSES = ["person"]
GIVEN = {
    "classes": CLASSES, "new_metric": partial(PairMetric, CLASSES), "max_detections": 20, "score_threshold": 0.05,
}  # fmt: skip
THIN = {"channels": [8, 8, 16, 16], "pyramid_channels": 16, "head_channels": 16}


def pair_batch(*targets, padded=None, seed=0, present=None):
    """Return random pixels of four channels under ``targets``, each pair with a seed by its id."""
    plain = detection_batch(*targets, padded=padded, seed=seed)
    infrared = detection_batch(*targets, padded=padded, seed=seed + 1000).images[:, :1]
    images = torch.cat([plain.images, infrared], dim=1).contiguous(memory_format=torch.channels_last)
    present = torch.ones(len(targets), 2, dtype=torch.bool) if present is None else torch.tensor(present)
    seeds = tuple(abs(hash(t.image_id)) for t in targets)
    return PairBatch(images, plain.pixel_mask, plain.targets, present=present, seeds=seeds)


def persons(*boxes, image_id=1, size=(64, 64)):
    """Return a target of persons with ``boxes``."""
    return target(list(boxes), [0] * len(boxes), size, image_id=image_id)


def tiny_task(**changes):
    """Return a thin task of ``model=pair_faster_rcnn_tiny`` whose weights are the same each time."""
    values = compose_plain("model=pair_faster_rcnn_tiny")["model"]
    values = {key: value for key, value in values.items() if key != "_target_"}
    torch.manual_seed(0)
    return pair_faster_rcnn_tiny(**GIVEN | values | THIN | changes)
