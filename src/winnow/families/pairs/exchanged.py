"""Finds pairs whose images belong to others: what both cameras see has its edges at the same places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIZE = (160, 128)
"""Width and height in px at which edges are compared."""
_WINDOW = 20
# By how much two pairs must correlate better when their infrared images change places, of 4 at most: the sums of real pairs
# fall by 0.2 or more.
_GAIN = 0.1
_FEWEST = 3
# Pairs of a recording that are compared at once, 80 kB each.
_AT_ONCE = 500
_GREY_SPREAD = 8
_COLOURED_SHARE = 0.02


def edges_of(image: Image.Image) -> np.ndarray:
    """Return (H, W) float16 how strongly the brightness of ``image`` changes, at ``SIZE``."""
    grey = np.asarray(image.convert("L").resize(SIZE, Image.Resampling.BOX), dtype=np.float32)
    down, across = np.gradient(grey)
    return np.asarray(np.sqrt(np.hypot(down, across)), dtype=np.float16)


def is_coloured(image: Image.Image) -> bool:
    """Tell whether more than a few pixels of an RGB ``image`` are not grey."""
    pixels = np.asarray(image.resize(SIZE), dtype=np.int16)
    return bool((np.ptp(pixels, axis=2) > _GREY_SPREAD).mean() > _COLOURED_SHARE)


def exchanged(visible: Sequence[np.ndarray], infrared: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return the numbers of pairs of one recording, in its order, that fit better with each other's infrared image.

    The recording's own mean is taken off first, since a camera that stands still sees the same in all of them; with fewer than
    three pairs there is nothing to compare with.
    """
    if len(visible) < _FEWEST:
        return []
    if len(visible) > _AT_ONCE:
        rest = exchanged(visible[_AT_ONCE:], infrared[_AT_ONCE:])
        return exchanged(visible[:_AT_ONCE], infrared[:_AT_ONCE]) + [(a + _AT_ONCE, b + _AT_ONCE) for a, b in rest]
    of_visible, of_infrared = _standardised(visible), _standardised(infrared)
    found = []
    for one in range(len(of_visible)):
        others = np.arange(one + 1, min(one + 1 + _WINDOW, len(of_visible)))
        own = (of_visible[others] * of_infrared[others]).sum(axis=1) + of_visible[one] @ of_infrared[one]
        gain = of_visible[one] @ of_infrared[others].T + of_visible[others] @ of_infrared[one] - own
        found += [(one, int(other)) for other in others[gain > _GAIN]]
    return found


def _standardised(edges: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.stack([edge.ravel() for edge in edges]).astype(np.float32)
    rows -= rows.mean(axis=0)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
