"""Maps for tests: lines by hand, batches without images, and a small set of files in nuScenes' schema."""

import numpy as np
import torch

from winnow.families.maps.batch import MapBatch, MapTarget
from winnow.families.maps.lines import CLASSES, MapLines
from winnow.families.maps.predictions import MapPredictions

CITIES = ("here", "there")


def lines(*labelled):
    """Return lines from (class, points)."""
    return MapLines.of(
        [np.array(points, float) for _, points in labelled], [CLASSES.index(name) for name, _ in labelled]
    )


def batch(*truths, cities=None):
    """Return a batch of black images with these true lines, MapLines each."""
    cities = cities or [CITIES[0]] * len(truths)
    targets = [
        MapTarget(number, city, true, torch.from_numpy(true.resampled(20)), torch.from_numpy(true.labels),
                  torch.from_numpy(true.closed))
        for number, (true, city) in enumerate(zip(truths, cities, strict=True))
    ]  # fmt: skip
    count = len(truths)
    return MapBatch(
        torch.zeros(6 * count, 3, 16, 32, dtype=torch.uint8), torch.eye(4).expand(count, 6, 4, 4),
        torch.eye(3).expand(count, 6, 3, 3), torch.zeros(count, 3), targets,
    )  # fmt: skip


def found(true, score=1.0, moved=(0.0, 0.0), num_points=20):
    """Return the true lines as predictions, all of one score, moved."""
    points = torch.from_numpy(true.resampled(num_points)) + torch.tensor(moved)
    return MapPredictions(points, torch.full((len(true),), score), torch.from_numpy(true.labels))


def random_lines(rng, count):
    """Return lines of all classes, rings among them, near the origin."""
    made = []
    for _ in range(count):
        steps = rng.normal(0, 4, (int(rng.integers(2, 9)), 2))
        line = rng.uniform(-12, 12, 2) + np.cumsum(steps, axis=0)
        if len(line) > 3 and rng.random() < 0.3:
            line = np.concatenate([line, line[:1]])
        made.append(line)
    return MapLines.of(made, rng.integers(0, len(CLASSES), count).tolist())
