"""Chamfer distances between lines: half the sum of the two directed means of each point's distance to the nearest other one."""

from __future__ import annotations

import numpy as np

from winnow.families.maps.frame import Array

_PAIRS_AT_ONCE = 32


def chamfer_distances(found: Array, true: Array, limit: float = np.inf) -> Array:
    """Return (K, N) distances in metres between lines of (K, P, 2) and (N, Q, 2) points; infinite where they are not below
    ``limit``, which spares most of the work. What is not finite is infinitely far away."""
    distances = np.full((len(found), len(true)), np.inf)
    near = np.argwhere(_lower_bounds(found, true) < limit)
    for begin in range(0, len(near), _PAIRS_AT_ONCE):
        row, column = near[begin : begin + _PAIRS_AT_ONCE].T
        one, other = found[row], true[column]
        squared = (one[:, :, None, 0] - other[:, None, :, 0]) ** 2 + (one[:, :, None, 1] - other[:, None, :, 1]) ** 2
        to_other, to_one = np.sqrt(squared.min(axis=2)).mean(axis=1), np.sqrt(squared.min(axis=1)).mean(axis=1)
        distances[row, column] = (to_other + to_one) / 2
    return np.where(distances < limit, distances, np.inf)


def _lower_bounds(found: Array, true: Array) -> Array:
    """Return (K, N) distances that the chamfer distances are at least: those to the bounding boxes of the others' points."""
    if not len(found) or not len(true):
        return np.zeros((len(found), len(true)))
    return (_to_boxes(found, true) + _to_boxes(true, found).T) / 2


def _to_boxes(lines: Array, others: Array) -> Array:
    """Return the mean distance of the points of each line to the box around each other line, (K, N)."""
    low, high = others.min(axis=1), others.max(axis=1)
    points = lines[:, None]
    outside = np.maximum(np.maximum(low[None, :, None] - points, points - high[None, :, None]), 0)
    return np.asarray(np.hypot(outside[..., 0], outside[..., 1]).mean(axis=2))
