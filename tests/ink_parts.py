"""Small tiles of ink with exact labels, and what a network that knew them would say."""

from dataclasses import replace

import torch

from winnow.families.ink.batch import InkBatch, InkTarget
from winnow.families.ink.predictions import InkPredictions

SETTINGS = {
    "channels": [8, 8, 16], "depths": [1, 1, 1], "embed_dim": 32, "num_layers": 1, "num_heads": 2, "skips": True,
    "full_heads": True, "mask_ratio": 0.0,
    "loss_weights": {"skeleton": 10, "key_points": 5, "tangent": 1, "width": 1, "offset": 1},
}  # fmt: skip


def tiles(*lines, size=16, full=True):
    """Return a batch with a tile per line: ((row, first column, last column), stroke width), drawn from left to right with an
    end point on either end; None is an empty tile."""
    count = len(lines)
    images = torch.zeros(count, 1, size, size)
    target = InkTarget(
        torch.zeros(count, 1, size, size), torch.zeros(count, 2, size, size), torch.zeros(count, 1, size, size),
        torch.zeros(count, 2, size, size), torch.zeros(count, 3, size, size), torch.full((count,), full),
    )  # fmt: skip
    for index, line in enumerate(lines):
        if line is not None:
            (row, first, last), width = line
            on = (index, slice(None), row, slice(first, last + 1))
            images[index, 0, row - 1 : row + 2, first : last + 1] = 1
            target.skeleton[on] = 1
            target.tangent[on] = torch.tensor([1.0, 0.0])[:, None]
            target.width[on] = width
            target.offset[on] = torch.tensor([0.0, 0.25])[:, None]
            target.key_points[index, 0, row, [first, last]] = 1
    return InkBatch(images, target, list(range(count)))


def some(batch, *rows):
    """Return the tiles of ``batch`` in these rows."""
    rows = list(rows)
    return InkBatch(
        batch.images[rows], batch.target.each(lambda labels: labels[rows]), [batch.image_ids[row] for row in rows]
    )


def truth(batch):
    """Return what a perfect network would predict."""
    target = batch.target
    maps = (target.skeleton, target.tangent, target.width, target.offset, target.key_points)
    return InkPredictions(*(labels.clone() for labels in maps))


def moved(predictions, down):
    """Return the found skeleton and key points, ``down`` rows lower."""
    return replace(
        predictions, skeleton=predictions.skeleton.roll(down, 2), key_points=predictions.key_points.roll(down, 2)
    )
