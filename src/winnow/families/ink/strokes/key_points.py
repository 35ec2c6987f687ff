"""Key points, where strokes end, meet, cross and turn sharply: found on the curves, marked at the nearest skeleton pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from winnow.families.ink.batch import KEY_POINT_KINDS
from winnow.families.ink.strokes.curves import (
    CHORD,
    CORNER,
    FREE,
    Array,
    Chords,
    Indices,
    Strokes,
    points_at,
    velocities_at,
)

_END_POINT, _JUNCTION, _CORNER = range(len(KEY_POINT_KINDS))
# An end this close to the middle of another stroke, or inside its ink, meets it: px.
_TOUCH = 1.0
# Two findings closer than this, px, are one junction.
_SAME = 1.5


def find_key_points(strokes: Strokes, chords: Chords, skeleton: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (n × size × size, 3) bool in the order of ``KEY_POINT_KINDS`` for ``skeleton`` (n, size, size).

    A crossing of two curves, or of one with itself, is a junction, and so is an end that lies on another stroke; only
    the other ends are end points. A corner is where two segments of a path meet with different directions. What lies
    out of the tile is not marked.
    """
    marks = np.zeros((skeleton.size, len(KEY_POINT_KINDS)), dtype=bool)
    cells = _Cells(strokes, chords)
    crossings, crossing_tiles = _crossings(strokes, chords, cells)
    ends, end_tiles, is_touching = _ends(strokes, chords, cells)
    meetings, meeting_tiles = _without_repeats(
        np.concatenate((crossings, ends[:, is_touching]), axis=1),
        np.concatenate((crossing_tiles, end_tiles[is_touching])),
    )
    is_corner = strokes.joins[0] == CORNER
    for kind, points, tiles in (
        (_END_POINT, ends[:, ~is_touching], end_tiles[~is_touching]),
        (_JUNCTION, meetings, meeting_tiles),
        (_CORNER, strokes.control[0][:, is_corner], strokes.tile[is_corner]),
    ):
        marks[_nearest_pixels(points, tiles, skeleton), kind] = True
    return marks


class _Cells:
    """Chords by the square of ``CHORD`` px in which their middles lie: those that can meet are in the same or adjacent ones."""

    def __init__(self, strokes: Strokes, chords: Chords) -> None:
        self._tile = strokes.tile[chords.segment]
        column, row = np.floor((chords.start + chords.end) / (2 * CHORD)).astype(np.intp)
        self._left, self._top = int(column.min(initial=0)) - 2, int(row.min(initial=0)) - 2
        self._columns = int(column.max(initial=0)) - self._left + 3
        self._rows = int(row.max(initial=0)) - self._top + 3
        self.of_chord = self.index(column, row, self._tile)
        self._order = np.argsort(self.of_chord, kind="stable")
        counts = np.bincount(self.of_chord, minlength=strokes.num_tiles * self._rows * self._columns)
        self._begins = np.concatenate(([0], np.cumsum(counts)))

    def index(self, column: Indices, row: Indices, tile: Indices) -> Indices:
        """Return the index of cells that are clipped to those around the chords."""
        column = np.clip(column - self._left, 0, self._columns - 1)
        row = np.clip(row - self._top, 0, self._rows - 1)
        return (tile * self._rows + row) * self._columns + column

    def neighbours(self, cells: Indices, around: int) -> tuple[Indices, Indices]:
        """Return pairs (position in ``cells``, chord) of the chords at most ``around`` cells away from each."""
        shift = np.arange(-around, around + 1)
        asked = (cells[:, None, None] + shift[:, None] * self._columns + shift).reshape(len(cells), -1)
        asked = np.clip(asked, 0, len(self._begins) - 2)
        begins = self._begins[asked].ravel()
        counts = self._begins[asked + 1].ravel() - begins
        position = np.repeat(np.arange(len(cells)), counts.reshape(asked.shape).sum(axis=1))
        ends = np.cumsum(counts)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        return position, self._order[np.repeat(begins, counts) + within]


def _crossings(strokes: Strokes, chords: Chords, cells: _Cells) -> tuple[Array, Indices]:
    """Return points (2, k) where curves cross, and their tiles (k,)."""
    one, other = cells.neighbours(cells.of_chord, 1)
    path = strokes.path[chords.segment]
    tile = strokes.tile[chords.segment]
    is_pair = (other > one + 1) | ((other == one + 1) & (path[one] != path[other]))
    is_pair &= tile[one] == tile[other]
    one, other = one[is_pair], other[is_pair]
    a, b = chords.end[:, one] - chords.start[:, one], chords.end[:, other] - chords.start[:, other]
    gap = chords.start[:, other] - chords.start[:, one]
    determinant = _cross(a, b)
    determinant = np.where(determinant == 0, np.inf, determinant)
    along_one, along_other = _cross(gap, b) / determinant, _cross(gap, a) / determinant
    is_crossing = (along_one >= 0) & (along_one < 1) & (along_other >= 0) & (along_other < 1)
    one, other = one[is_crossing], other[is_crossing]
    t = chords.t[one] + along_one[is_crossing] * chords.step[one]
    u = chords.t[other] + along_other[is_crossing] * chords.step[other]
    point = _refine(strokes, chords.segment[one], chords.segment[other], t, u)
    return point, tile[one]


def _refine(strokes: Strokes, one: Indices, other: Indices, t: Array, u: Array) -> Array:
    """Return (2, k) crossings of the curves themselves near the parameters ``t`` and ``u`` (k,) at which their chords cross."""
    first, second = strokes.control[:, :, one], strokes.control[:, :, other]
    for _ in range(2):
        gap = points_at(second, u) - points_at(first, t)
        v, w = velocities_at(first, t), velocities_at(second, u)
        determinant = _cross(v, w)
        # Curves that all but touch are left where their chords cross.
        is_steep = np.abs(determinant) > 0.05 * np.hypot(*v) * np.hypot(*w)
        determinant = np.where(is_steep, determinant, np.inf)
        t, u = t + _cross(gap, w) / determinant, u + _cross(gap, v) / determinant
        t, u = np.clip(t, 0, 1), np.clip(u, 0, 1)
    return points_at(first, t)


def _ends(strokes: Strokes, chords: Chords, cells: _Cells) -> tuple[Array, Indices, NDArray[np.bool_]]:
    """Return free ends (2, k) of paths, their tiles (k,), and whether another stroke, or another part of their own, passes
    there."""
    begins, stops = (np.flatnonzero(strokes.joins[end] == FREE) for end in range(2))
    points = np.concatenate((strokes.control[0][:, begins], strokes.control[3][:, stops]), axis=1)
    segment = np.concatenate((begins, stops))
    tiles = strokes.tile[segment]
    lengths = chords.along + np.hypot(*(chords.end - chords.start))
    last = np.searchsorted(chords.segment, stops, side="right") - 1
    along = np.concatenate((np.zeros(len(begins), dtype=np.float32), lengths[last]))
    widest = float(strokes.width.max(initial=0)) / 2
    around = int(np.ceil((max(widest, _TOUCH) + CHORD / 2) / CHORD))
    column, row = np.floor(points / CHORD).astype(np.intp)
    end, chord = cells.neighbours(cells.index(column, row, tiles), around)
    step = chords.end[:, chord] - chords.start[:, chord]
    gap = points[:, end] - chords.start[:, chord]
    part = np.clip((gap * step).sum(axis=0) / np.maximum((step * step).sum(axis=0), 1e-12), 0, 1)
    first, second = strokes.width[:, chords.segment[chord]] / 2
    radius = first + (second - first) * (chords.t[chord] + part * chords.step[chord])
    reach = np.maximum(radius, _TOUCH)
    is_touched = np.hypot(*(gap - part * step)) <= reach
    is_touched &= strokes.tile[chords.segment[chord]] == tiles[end]
    # The end's own stroke passes there all the time; it counts where it comes back.
    is_own = strokes.path[chords.segment[chord]] == strokes.path[segment[end]]
    is_touched &= ~is_own | (np.abs(chords.along[chord] - along[end]) > 3 * reach + 2 * CHORD)
    is_touching = np.zeros(len(segment), dtype=bool)
    is_touching[end[is_touched]] = True
    return points, tiles, is_touching


def _without_repeats(points: Array, tiles: Indices) -> tuple[Array, Indices]:
    """Return those of ``points`` (2, k) and their tiles that have none before them of the same tile within ``_SAME`` px."""
    squared = ((points[:, :, None] - points[:, None, :]) ** 2).sum(axis=0)
    is_repeat = np.tril((squared < _SAME**2) & (tiles[:, None] == tiles), k=-1).any(axis=1)
    return points[:, ~is_repeat], tiles[~is_repeat]


def _nearest_pixels(points: Array, tiles: Indices, skeleton: NDArray[np.bool_]) -> Indices:
    """Return flat indices of the skeleton pixels nearest to those of ``points`` (2, k) that lie in their tiles."""
    size = skeleton.shape[-1]
    is_inside = ((points >= 0) & (points < size)).all(axis=0)
    points, tiles = points[:, is_inside], tiles[is_inside]
    column, row = np.floor(points).astype(np.intp)
    shift = np.arange(-2, 3)
    columns = np.broadcast_to(column[:, None, None] + shift, (len(column), 5, 5)).reshape(-1, 25)
    rows = np.broadcast_to(row[:, None, None] + shift[:, None], (len(row), 5, 5)).reshape(-1, 25)
    is_free = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    flat = (tiles[:, None] * size + np.clip(rows, 0, size - 1)) * size + np.clip(columns, 0, size - 1)
    squared = (columns + 0.5 - points[0, :, None]) ** 2 + (rows + 0.5 - points[1, :, None]) ** 2
    squared = np.where(is_free & skeleton.ravel()[flat], squared, np.inf)
    best = squared.argmin(axis=1)
    picked = np.arange(len(best))
    return flat[picked, best][np.isfinite(squared[picked, best])]


def _cross(a: Array, b: Array) -> Array:
    return a[0] * b[1] - a[1] * b[0]
