"""Cubic Bézier strokes of several tiles at once, cut into short chords; positions are px with x to the right and y down.

Arrays hold coordinates first, (2, …), and every step is elementwise, so what comes out for one tile does not depend on which
others it is computed with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Indices = NDArray[np.intp]

# How a segment begins and ends.
SMOOTH, FREE, CORNER = 0, 1, 2
# Longest chord in px.
CHORD = 1.5


@dataclass(frozen=True)
class Strokes:
    """S segments in the order in which they are drawn, path by path and tile by tile.

    ``control`` (4, 2, S) float32 the points of the cubics; ``width`` (2, S) float32 full widths in px at their beginnings and
    ends, linear in t between; ``tile`` (S,) their tiles, ``path`` (S,) their paths, numbered over all tiles; ``joins`` (2, S)
    int8 how they begin and end: ``SMOOTH`` with the same direction as their neighbour of the path, ``FREE`` or ``CORNER``.
    """

    control: Array
    width: Array
    tile: Indices
    path: Indices
    joins: NDArray[np.int8]
    num_tiles: int
    size: int

    def take(self, segments: Indices) -> tuple[Array, Array]:
        """Return control points (4, 2, n) and widths (2, n) of the given segments."""
        return self.control[:, :, segments], self.width[:, segments]


@dataclass(frozen=True)
class Chords:
    """The strokes as n chords of at most ``CHORD`` px, in the same order: from ``start`` (2, n) to ``end`` (2, n), of
    ``segment`` (n,) from parameter ``t`` (n,) to ``t + step``; ``along`` (n,) is the length of the path before it in px."""

    start: Array
    end: Array
    segment: Indices
    t: Array
    step: Array
    along: Array


def points_at(control: Array, t: Array) -> Array:
    """Return (2, n) points of the cubics ``control`` (4, 2, n) at ``t`` (n,)."""
    u = 1 - t
    tu = 3 * t * u
    return control[0] * (u * u * u) + control[1] * (tu * u) + control[2] * (tu * t) + control[3] * (t * t * t)


def velocities_at(control: Array, t: Array) -> Array:
    """Return (2, n) first derivatives."""
    u = 1 - t
    first, second, third = np.diff(control, axis=0)
    return 3 * (first * (u * u) + second * (2 * t * u) + third * (t * t))


def accelerations_at(control: Array, t: Array) -> Array:
    """Return (2, n) second derivatives."""
    first, second = np.diff(control, n=2, axis=0)
    return 6 * (first * (1 - t) + second * t)


def cut_into_chords(strokes: Strokes) -> Chords:
    steps = np.diff(strokes.control, axis=0)
    # A cubic is nowhere faster than three times its longest leg.
    fastest = 3 * np.sqrt((steps * steps).sum(axis=1).max(axis=0))
    counts = np.maximum(np.ceil(fastest / CHORD), 2).astype(np.intp)
    segment = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    step = (1 / counts).astype(np.float32)[segment]
    t = (np.arange(len(segment)) - (ends - counts)[segment]).astype(np.float32) * step
    start = points_at(strokes.control[:, :, segment], t)
    end = np.roll(start, -1, axis=1)
    end[:, ends - 1] = strokes.control[3]
    return Chords(start, end, segment, t, step, _lengths_before(start, end, strokes.path[segment]))


def _lengths_before(start: Array, end: Array, path: Indices) -> Array:
    """Return the (n,) length of a chord's path up to its beginning; each path's sum is its own, and so is its rounding."""
    lengths = np.hypot(*(end - start)).astype(np.float64)
    before = np.zeros_like(lengths)
    begins = np.flatnonzero(np.diff(path, prepend=-1))
    for begin, stop in zip(begins, [*begins[1:], len(path)], strict=True):
        np.cumsum(lengths[begin : stop - 1], out=before[begin + 1 : stop])
    return before.astype(np.float32)


def closest_points(control: Array, near: Array, t: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Find for points ``near`` (2, n) the closest ones of the cubics ``control`` (4, 2, n) around the guesses ``t``
    (n,).

    Return their parameters (n,), the vectors to them (2, n), and whether they are inside: False if the closest point is
    an end of the segment and the curve would come closer beyond it. By Newton's method; exact to 1e-4 px for guesses
    within a pixel.
    """
    for _ in range(3):
        vector = points_at(control, t) - near
        velocity = velocities_at(control, t)
        squared_speed = _dot(velocity, velocity)
        curvature = squared_speed + _dot(vector, accelerations_at(control, t))
        # Far inside a bend the curvature term changes sign, and Newton would run away from the curve.
        t = t - _dot(vector, velocity) / np.maximum(curvature, 0.25 * squared_speed)
        t = np.clip(t, -0.05, 1.05)
    is_inside = (t >= -1e-4) & (t <= 1 + 1e-4)
    t = np.clip(t, 0, 1)
    return t, points_at(control, t) - near, is_inside


def _dot(a: Array, b: Array) -> Array:
    return a[0] * b[0] + a[1] * b[1]
