"""Random strokes: ten levels from one stroke to several paths of several segments, as a function of uniform random numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from winnow.families.ink.strokes.curves import CORNER, FREE, SMOOTH, Strokes

Array = NDArray[np.float64]

NUM_LEVELS = 10
_MAX_PATHS, _MAX_SEGMENTS = 5, 5
_PER_IMAGE, _PER_PATH, _PER_SEGMENT = 7, 11, 9
# Uniform random numbers that a drawing takes.
NUM_DRAWN = _PER_IMAGE + _MAX_PATHS * (_PER_PATH + _MAX_SEGMENTS * _PER_SEGMENT)

# Drawings are planned on a square of this side in px, and then scaled.
_CANVAS = 64.0
_MARGIN = 3.5
# A path that would be smaller than this part of its level's least extent to begin on another one stands free instead.
_MIN_ATTACHED = 0.7
_HANDLE = (0.3, 0.42)
# Radians that a corner turns by, and that a path leaves another one under.
_CORNER_TURN = (1.1, 2.3)
_BRANCH_TURN = (0.8, np.pi - 0.8)


@dataclass(frozen=True)
class _Level:
    """``paths`` and ``segments`` [fewest, most]; ``bend`` radians that a segment turns by at most on either half; ``corner``
    and ``branch`` the probabilities that segments meet in a corner and that a path begins on another; ``extent`` of a path's
    longer side in parts of the tile; ``width`` px at 64 px; ``variation`` of the width along a path."""

    paths: tuple[int, int]
    segments: tuple[int, int]
    bend: float
    corner: float
    branch: float
    extent: tuple[float, float]
    width: tuple[float, float]
    variation: float


_LEVELS = (
    _Level((1, 1), (1, 1), 0.5, 0.0, 0.0, (0.50, 0.85), (2.0, 4.0), 0.15),
    _Level((1, 2), (1, 2), 0.6, 0.3, 0.3, (0.45, 0.85), (2.0, 4.0), 0.20),
    _Level((2, 2), (1, 2), 0.7, 0.3, 0.3, (0.45, 0.85), (1.8, 4.2), 0.25),
    _Level((1, 2), (2, 3), 0.8, 0.3, 0.3, (0.45, 0.85), (1.8, 4.4), 0.30),
    _Level((2, 3), (1, 3), 0.8, 0.3, 0.3, (0.45, 0.85), (1.6, 4.4), 0.30),
    _Level((2, 3), (2, 3), 0.9, 0.3, 0.3, (0.45, 0.85), (1.6, 4.2), 0.35),
    _Level((2, 4), (2, 4), 1.0, 0.3, 0.35, (0.45, 0.85), (1.5, 4.0), 0.40),
    _Level((3, 4), (2, 4), 1.0, 0.3, 0.35, (0.45, 0.85), (1.5, 3.8), 0.40),
    _Level((3, 5), (2, 4), 1.1, 0.3, 0.35, (0.40, 0.80), (1.4, 3.6), 0.45),
    _Level((4, 5), (2, 5), 1.1, 0.3, 0.35, (0.40, 0.80), (1.4, 3.4), 0.45),
)
_TABLE = {field.name: np.array([getattr(level, field.name) for level in _LEVELS]) for field in fields(_Level)}


def draw_strokes(drawn: Array, levels: NDArray[np.intp], size: int, affine: float) -> Strokes:
    """Draw the strokes of one tile of ``size`` px per row of ``drawn`` (n, ``NUM_DRAWN``), uniform in [0, 1), at
    ``levels`` (n,) from 1.

    ``affine`` from 0 to 1 is how far a drawing may be turned, stretched, sheared and shifted, partly out of its tile;
    at 0 it keeps inside. A row's strokes depend on it alone.
    """
    settings = {name: values[levels - 1] for name, values in _TABLE.items()}
    image, rest = drawn[:, :_PER_IMAGE].T, drawn[:, _PER_IMAGE:].reshape(len(drawn), _MAX_PATHS, -1)
    path = np.moveaxis(rest[:, :, :_PER_PATH], 2, 0)
    segment = np.moveaxis(rest[:, :, _PER_PATH:].reshape(len(drawn), _MAX_PATHS, _MAX_SEGMENTS, _PER_SEGMENT), 3, 0)
    num_paths = _integer(settings["paths"].T, image[0])
    num_segments = _integer(settings["segments"].T[:, :, None], path[0])
    is_corner = segment[5] < settings["corner"][:, None, None]
    is_drawn = np.arange(_MAX_SEGMENTS) < num_segments[..., None]
    control = _shapes(path, segment, settings["bend"], is_corner)
    control = _place(control, is_drawn, num_paths, num_segments, path, settings)
    control, factor = _transform(control, image[1:], affine)
    width = _widths(path, segment, settings) * factor[:, None, None]
    is_last = np.arange(_MAX_SEGMENTS) == num_segments[..., None] - 1
    begins = np.where(is_corner, CORNER, SMOOTH)
    begins[..., 0] = FREE
    ends = np.where(is_last, FREE, np.roll(begins, -1, axis=2))
    chosen = is_drawn & (np.arange(_MAX_PATHS) < num_paths[:, None])[..., None]
    tile, number, _ = np.nonzero(chosen)
    scale = size / _CANVAS
    return Strokes(
        control=(control[..., chosen] * scale).astype(np.float32),
        width=(width[:, chosen] * scale).astype(np.float32),
        tile=tile,
        path=tile * _MAX_PATHS + number,
        joins=np.stack((begins, ends))[:, chosen].astype(np.int8),
        num_tiles=len(drawn),
        size=size,
    )


def _shapes(path: Array, segment: Array, bend: Array, is_corner: NDArray[np.bool_]) -> Array:
    """Return (4, 2, n, paths, segments) control points of paths that begin at the origin to the right."""
    length = 0.6 + 0.8 * segment[0]
    # A path keeps on bending to one side more than to the other, as in loops.
    curl = 1.2 * (path[1] - 0.5)[..., None]
    first, second = (bend[:, None, None] * np.clip(curl + 1.6 * (u - 0.5), -1, 1) for u in segment[1:3])
    sign = np.where(segment[6] < 0.5, -1.0, 1.0)
    corner = np.where(is_corner, sign * _between(_CORNER_TURN, segment[7]), 0.0)
    corner[..., 0] = 0.0
    turned = np.cumsum(first + second, axis=2) + np.cumsum(corner, axis=2)
    heading_in = turned - first - second
    chord = length * _direction(heading_in + first)
    end = np.cumsum(chord, axis=3)
    start = end - chord
    first_handle, second_handle = (length * _between(_HANDLE, u) for u in segment[3:5])
    return np.stack(
        (start, start + first_handle * _direction(heading_in), end - second_handle * _direction(turned), end)
    )


def _widths(path: Array, segment: Array, settings: dict[str, Array]) -> Array:
    """Return (2, n, paths, segments) px at the beginnings and ends of segments."""
    usual = _between(settings["width"].T[:, :, None], path[2])[..., None]
    variation = settings["variation"][:, None, None]
    at_end = usual * (1 + variation * (2 * segment[8] - 1))
    at_start = np.roll(at_end, 1, axis=2)
    at_start[..., :1] = usual * (1 + variation * (2 * path[3][..., None] - 1))
    return np.stack((at_start, at_end))


def _place(
    control: Array,
    is_drawn: NDArray[np.bool_],
    num_paths: NDArray[np.intp],
    num_segments: NDArray[np.intp],
    path: Array,
    settings: dict[str, Array],
) -> Array:
    """Turn, scale and move each path so that it keeps inside the canvas, one after the other: some begin on an earlier one."""
    placed = np.zeros_like(control)
    rows = np.arange(control.shape[2])
    samples = np.where(is_drawn, _sample(control), 0.0)
    for number in range(min(_MAX_PATHS, int(num_paths.max(initial=1)))):
        u = path[4:, :, number]
        angle = 2 * np.pi * u[0]
        is_branch = np.zeros(len(rows), dtype=bool)
        if number:
            is_branch = path[10, :, number] < settings["branch"]
            earlier = (u[1] * number).astype(np.intp)
            on = (u[2] * num_segments[rows, earlier]).astype(np.intp)
            root, tangent = _point_on(placed[:, :, rows, earlier, on], 0.2 + 0.6 * u[3])
            sign = np.where(u[4] < 0.5, -1.0, 1.0)
            angle = np.where(is_branch, tangent + sign * _between(_BRANCH_TURN, u[0]), angle)
        turned = _turn(samples[:, :, :, number], angle)
        low, high = turned.min(axis=(0, 3)), turned.max(axis=(0, 3))
        side = np.maximum((high - low).max(axis=0), 1e-3)
        scale = _CANVAS * _between(settings["extent"].T, u[5]) / side
        origin = _MARGIN - low * scale + u[3:5] * (_CANVAS - 2 * _MARGIN - (high - low) * scale)
        if number:
            room = np.minimum(
                (root - _MARGIN) / np.maximum(-low, 1e-3), (_CANVAS - _MARGIN - root) / np.maximum(high, 1e-3)
            )
            fitting = np.minimum(scale, room.min(axis=0))
            is_branch &= fitting * side >= _MIN_ATTACHED * _CANVAS * settings["extent"][:, 0]
            scale, origin = np.where(is_branch, fitting, scale), np.where(is_branch, root, origin)
        placed[:, :, :, number] = _turn(control[:, :, :, number], angle) * scale[:, None] + origin[..., None]
    return placed


def _transform(control: Array, u: Array, strength: float) -> tuple[Array, Array]:
    """Return the drawing turned, stretched, sheared and shifted about the canvas's middle, and the factor (n,) on its
    widths.
    """
    turn, stretch, aspect, shear, shift_x, shift_y = strength * (2 * u - 1)
    cos, sin = np.cos(0.35 * turn), np.sin(0.35 * turn)
    scale_x, scale_y = np.exp(0.2 * stretch + 0.12 * aspect), np.exp(0.2 * stretch - 0.12 * aspect)
    slant = 0.35 * shear
    xx, xy = cos * scale_x, (cos * slant - sin) * scale_y
    yx, yy = sin * scale_x, (sin * slant + cos) * scale_y
    x, y = np.moveaxis(control, 1, 0) - _CANVAS / 2
    xx, xy, yx, yy, shift_x, shift_y = (a[:, None, None] for a in (xx, xy, yx, yy, shift_x, shift_y))
    new_x = xx * x + xy * y + _CANVAS * (0.5 + 0.12 * shift_x)
    new_y = yx * x + yy * y + _CANVAS * (0.5 + 0.12 * shift_y)
    return np.stack((new_x, new_y), axis=1), np.sqrt(scale_x * scale_y)


def _bernstein(t: Array) -> Array:
    return np.stack(((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3))


def _sample(control: Array) -> Array:
    """Return (6, 2, …) points along the cubics ``control`` (4, 2, …), to find their extent."""
    weights = _bernstein(np.linspace(0, 1, 6))
    return np.stack([sum(w * points for w, points in zip(at, control, strict=True)) for at in weights.T])


def _point_on(control: Array, t: Array) -> tuple[Array, Array]:
    """Return points (2, n) and directions (n,) in radians of the cubics ``control`` (4, 2, n)."""
    point = (control * _bernstein(t)[:, None]).sum(axis=0)
    legs = np.diff(control, axis=0)
    velocity = legs[0] * (1 - t) ** 2 + legs[1] * (2 * t * (1 - t)) + legs[2] * t * t
    return point, np.arctan2(velocity[1], velocity[0])


def _turn(points: Array, angle: Array) -> Array:
    """Return ``points`` (k, 2, n, m) turned by ``angle`` (n,)."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = points[:, 0], points[:, 1]
    return np.stack((cos * x - sin * y, sin * x + cos * y), axis=1)


def _direction(angle: Array) -> Array:
    return np.stack((np.cos(angle), np.sin(angle)))


def _between(span: tuple[float, float] | Array, u: Array) -> Array:
    return span[0] + (span[1] - span[0]) * u


def _integer(span: Array, u: Array) -> NDArray[np.intp]:
    """Return an integer from ``span[0]`` to ``span[1]``, both included."""
    return (span[0] + np.floor(u * (span[1] - span[0] + 1))).astype(np.intp)
