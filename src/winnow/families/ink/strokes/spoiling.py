"""What pen, paper and camera do to ink: an uneven flow, stains, blur and noise, tile by tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Uniform random numbers that a tile takes: strengths, and the values of two coarse fields.
_GRID = 9
NUM_DRAWN = 3 + 2 * _GRID * _GRID
_BLUR_RADIUS = 4
# How dark the stains are beside how pale the ink may get.
_STAIN = 0.3


def spoil(ink: Array, drawn: Array, normal: Array | None, texture: float, blur: float, noise: float) -> Array:
    """Return ``ink`` (n, size, size) in [0, 1] made uneven, in that order, by up to ``texture`` (0–1), blurred by up to
    ``blur`` px (a Gaussian's σ) and overlaid with noise of a standard deviation up to ``noise``.

    ``drawn`` (n, ``NUM_DRAWN``) uniform in [0, 1) and ``normal``, of ``ink``'s shape, are all that the outcome depends
    on, row by row; ``normal`` may be None without noise.
    """
    strengths, fields = drawn[:, :3, None, None], drawn[:, 3:].reshape(len(drawn), 2, _GRID, _GRID)
    if texture:
        pale, stain = (_enlarged(fields[:, part], ink.shape[1]) for part in range(2))
        strength = texture * strengths[:, 0]
        ink = ink * (1 - strength * pale) + (1 - ink) * (strength * _STAIN * stain * stain)
    if blur:
        ink = _blurred(ink, blur * drawn[:, 1])
    if noise and normal is not None:
        ink = ink + noise * strengths[:, 2] * normal
    return np.clip(ink, 0, 1)


def _enlarged(field: Array, size: int) -> Array:
    """Return (n, size, size) by bilinear interpolation of ``field`` (n, k, k), whose corners become the tile's."""
    place = np.linspace(0, field.shape[1] - 1, size, dtype=np.float32)
    low = np.minimum(place.astype(np.intp), field.shape[1] - 2)
    part = place - low
    rows = field[:, low] * (1 - part)[:, None] + field[:, low + 1] * part[:, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part


def _blurred(ink: Array, sigma: Array) -> Array:
    shift = np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, dtype=np.float32)
    weights = np.exp(-0.5 * (shift / np.maximum(sigma, 1e-3)[:, None]) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    size = ink.shape[1]
    pad = ((0, 0), (_BLUR_RADIUS, _BLUR_RADIUS), (_BLUR_RADIUS, _BLUR_RADIUS))
    wide = np.pad(ink, pad, mode="edge")
    across = np.zeros((len(ink), wide.shape[1], size), dtype=np.float32)
    blurred = np.zeros_like(ink)
    for k, weight in enumerate(weights.T[:, :, None, None]):
        across += weight * wide[:, :, k : k + size]
    for k, weight in enumerate(weights.T[:, :, None, None]):
        blurred += weight * across[:, k : k + size]
    return blurred
