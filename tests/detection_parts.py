"""Small batches and detections to test tasks and metrics on."""

import numpy as np
import torch

from winnow.families.detection.batch import DetectionBatch, Detections, Target


def target(boxes, labels, size=(64, 96), original_size=None, image_id=1, crowd=None, areas=None):
    """Return a target whose original coordinates follow from its resized ones."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor(labels, dtype=torch.int64)
    original_size = original_size or size
    scale = torch.tensor([original_size[1] / size[1], original_size[0] / size[0]] * 2)
    original = boxes * scale
    crowd = torch.tensor(crowd if crowd is not None else [False] * len(labels), dtype=torch.bool)
    sides = original[:, 2:] - original[:, :2]
    areas = sides.prod(dim=1) if areas is None else torch.tensor(areas, dtype=torch.float32)
    return Target(image_id, boxes[~crowd], labels[~crowd], size, original_size, original, labels, areas, crowd)


def batch(*targets, padded=None, seed=0):
    """Return random pixels under ``targets``, zero-padded to ``padded`` (height, width)."""
    height, width = padded or (max(t.size[0] for t in targets), max(t.size[1] for t in targets))
    height, width = -(-height // 32) * 32, -(-width // 32) * 32
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(len(targets), 3, height, width, dtype=torch.uint8)
    mask = torch.zeros(len(targets), height, width, dtype=torch.bool)
    for row, (t, seed_pixels) in enumerate(zip(targets, [(3, *t.size) for t in targets], strict=True)):
        images[row, :, : t.size[0], : t.size[1]] = torch.randint(
            0, 256, seed_pixels, generator=generator, dtype=torch.uint8
        )
        mask[row, : t.size[0], : t.size[1]] = True
    return DetectionBatch(images.contiguous(memory_format=torch.channels_last), mask, list(targets))


def truth_as_detections(t, score=0.9):
    """Return what a perfect detector would say of a target."""
    wanted = ~t.original_crowd
    count = int(wanted.sum())
    return Detections(t.original_boxes[wanted], torch.full((count,), score), t.original_labels[wanted])


def nothing_found():
    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def jittered(rng, count=40, num_classes=3):
    """Return truth and detections that are partly right, as a detector's are; some crowds, some images without boxes."""
    truth, found = [], []
    for image_id in range(count):
        num = int(rng.integers(0, 6))
        corners = rng.uniform(0, [60, 40], (num, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(4, 36, (num, 2))], axis=1)
        labels = rng.integers(0, num_classes, num)
        truth.append(
            target(boxes.tolist(), labels.tolist(), (80, 100), (800, 1000), image_id, (rng.random(num) < 0.15).tolist())
        )
        guesses = np.concatenate([boxes + rng.normal(0, 3, boxes.shape), rng.uniform(0, 90, (3, 4))])
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = np.sort(rng.random(len(guesses)))[::-1].copy()
        guessed = np.concatenate([labels, rng.integers(0, num_classes, 3)])
        found.append(
            Detections(torch.tensor(guesses).float() * 10, torch.tensor(scores).float(), torch.tensor(guessed))
        )
    return truth, found
