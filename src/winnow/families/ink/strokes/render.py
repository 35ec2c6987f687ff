"""From strokes to tiles: anti-aliased ink, and the labels of every pixel of the centre-line, from the curves themselves.

A pixel belongs to the skeleton where the curve crosses the middle of its row or column, whichever the curve runs across more
steeply: the line is one pixel wide, now and then two around 45°, connected by sides or corners, and the curve's closest point
is inside the pixel. Of several curves the closest one labels a pixel, also where they cross.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from winnow.families.ink.strokes.curves import (
    CHORD,
    SMOOTH,
    Array,
    Chords,
    Indices,
    Strokes,
    closest_points,
    cut_into_chords,
    velocities_at,
)
from winnow.families.ink.strokes.key_points import find_key_points
from winnow.families.ink.tiles import InkTiles

# Farther from its chord than this, in px, no curve point can be within half a pixel.
_REACH = 0.75
_SLACK = 0.08


def render(strokes: Strokes) -> tuple[Array, InkTiles]:
    """Return the ink of each tile, (n, size, size) float32 in [0, 1], and the tiles with all labels and this ink as
    their images.
    """
    chords = cut_into_chords(strokes)
    ink = _ink(strokes, chords)
    return ink, _label(strokes, chords)


def _ink(strokes: Strokes, chords: Chords) -> Array:
    """Return per pixel the coverage by the round pen that is at its closest: 1 inside, falling over the one pixel
    around its edge.
    """
    size = strokes.size
    radius_from, radius_to = _radii(strokes, chords)
    reach = np.maximum(radius_from, radius_to) + 0.5 + CHORD / 2
    half = np.maximum(np.ceil(reach - 0.5), 1).astype(np.intp)
    widest = int(half.max(initial=1))
    pad = 2 * widest
    side = size + 2 * pad
    ink = np.zeros(strokes.num_tiles * side * side, dtype=np.float32)
    column, row, is_near = _pixel_of(chords, size, widest)
    tile = strokes.tile[chords.segment]
    for around in np.unique(half[is_near]):
        chosen = np.flatnonzero(is_near & (half == around))
        nearby = np.arange(-around, around + 1)
        base = (tile[chosen] * side + row[chosen] + pad) * side + column[chosen] + pad
        pixels = base[:, None, None] + nearby[:, None] * side + nearby
        step = chords.end[:, chosen] - chords.start[:, chosen]
        x = (column[chosen, None] + nearby + np.float32(0.5)).astype(np.float32) - chords.start[0, chosen, None]
        y = (row[chosen, None] + nearby + np.float32(0.5)).astype(np.float32) - chords.start[1, chosen, None]
        unit = step / np.maximum(step[0] * step[0] + step[1] * step[1], 1e-12)
        part = (x * unit[0, :, None])[:, None, :] + (y * unit[1, :, None])[:, :, None]
        np.clip(part, 0, 1, out=part)
        away_x = x[:, None, :] - part * step[0, :, None, None]
        away_y = y[:, :, None] - part * step[1, :, None, None]
        away_x *= away_x
        away_y *= away_y
        away_x += away_y
        np.sqrt(away_x, out=away_x)
        part *= (radius_to - radius_from)[chosen, None, None]
        part += (radius_from[chosen] + np.float32(0.5))[:, None, None]
        part -= away_x
        np.maximum.at(ink, pixels.ravel(), part.ravel())
    inside = ink.reshape(-1, side, side)[:, pad : pad + size, pad : pad + size]
    return np.minimum(inside, 1)


def _radii(strokes: Strokes, chords: Chords) -> tuple[Array, Array]:
    """Return (n,) px at the beginning and at the end of each chord."""
    first, last = strokes.width[:, chords.segment] / 2
    change = last - first
    return first + change * chords.t, first + change * (chords.t + chords.step)


def _pixel_of(chords: Chords, size: int, reach: int) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """Return column and row (n,) of the pixel under each chord's middle, and whether it is at most ``reach`` pixels out
    of the tile.
    """
    column, row = np.floor((chords.start + chords.end) / 2).astype(np.intp)
    is_near = (np.minimum(column, row) >= -reach) & (np.maximum(column, row) < size + reach)
    return column, row, is_near


def _label(strokes: Strokes, chords: Chords) -> InkTiles:
    size = strokes.size
    pixel, segment, t, vector, is_skeleton = _candidates(strokes, chords)
    squared = vector[0] * vector[0] + vector[1] * vector[1]
    closest = np.full(strokes.num_tiles * size * size, np.inf, dtype=np.float32)
    np.minimum.at(closest, pixel, squared)
    skeleton = np.zeros(len(closest), dtype=bool)
    skeleton[pixel[is_skeleton]] = True
    is_answer = (squared == closest[pixel]) & skeleton[pixel]
    # Where two curves are equally close, as at a corner, the one drawn first answers.
    pixel, first = np.unique(pixel[is_answer], return_index=True)
    answer = np.flatnonzero(is_answer)[first]
    control, width = strokes.take(segment[answer])
    velocity = velocities_at(control, t[answer])
    tangent = np.stack((velocity[0] ** 2 - velocity[1] ** 2, 2 * velocity[0] * velocity[1])) / (velocity**2).sum(axis=0)
    key_points = find_key_points(strokes, chords, skeleton.reshape(-1, size, size))
    tile = pixel // (size * size)
    return InkTiles(
        images=np.zeros((strokes.num_tiles, size, size), dtype=np.uint8),
        starts=np.searchsorted(tile, np.arange(strokes.num_tiles + 1)),
        pixel=pixel % (size * size),
        tangent=np.ascontiguousarray(tangent.T),
        width=width[0] + (width[1] - width[0]) * t[answer],
        offset=np.clip(vector[:, answer].T, -0.5, 0.5),
        key_points=key_points[pixel],
        has_full_labels=True,
    )


def _candidates(strokes: Strokes, chords: Chords) -> tuple[Indices, Indices, Array, Array, NDArray[np.bool_]]:
    """Return pixels with a curve nearby, once per chord: their flat indices over all tiles, the segment, the closest
    point's parameter and the vector (2, m) to it, and whether that makes the pixel part of the skeleton.
    """
    size = strokes.size
    column, row, is_near = _pixel_of(chords, size, 1)
    nearby = np.arange(-1, 2)
    columns = np.broadcast_to(column[:, None, None] + nearby, (len(column), 3, 3))
    rows = np.broadcast_to(row[:, None, None] + nearby[:, None], (len(row), 3, 3))
    step = chords.end - chords.start
    x = (columns + np.float32(0.5)).astype(np.float32) - chords.start[0, :, None, None]
    y = (rows + np.float32(0.5)).astype(np.float32) - chords.start[1, :, None, None]
    unit = step / np.maximum(step[0] * step[0] + step[1] * step[1], 1e-12)
    part = np.clip(x * unit[0, :, None, None] + y * unit[1, :, None, None], 0, 1)
    away_x, away_y = x - part * step[0, :, None, None], y - part * step[1, :, None, None]
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    wanted = np.flatnonzero((is_near[:, None, None] & inside & (away_x * away_x + away_y * away_y < _REACH**2)).ravel())
    chord = wanted // 9
    columns, rows = columns.ravel()[wanted], rows.ravel()[wanted]
    segment = chords.segment[chord]
    control, _ = strokes.take(segment)
    centre = np.stack((columns, rows)).astype(np.float32) + np.float32(0.5)
    t, vector, is_inside = closest_points(control, centre, chords.t[chord] + part.ravel()[wanted] * chords.step[chord])
    squared = vector[0] * vector[0] + vector[1] * vector[1]
    smallest, largest = np.sort(np.abs(vector), axis=0)
    is_tip = strokes.joins[(t > 0.5).astype(np.intp), segment] != SMOOTH
    # |v|² ≤ ½ max|vᵢ| says that the line through the closest point crosses the middle of the row or column; around 45° a curve
    # may bend past both middles, so there a little more is let in.
    slack = 1 + _SLACK * (smallest / np.maximum(largest, 1e-6)) ** 2
    is_skeleton = (largest <= 0.5) & np.where(is_inside, squared <= 0.5 * largest * slack, is_tip)
    pixel = (strokes.tile[segment] * size + rows) * size + columns
    return pixel, segment, t, vector, is_skeleton
