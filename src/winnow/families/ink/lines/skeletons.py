"""Labels of ink that nobody drew for us: the skeleton of its pixels, and what can be estimated from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from winnow.families.ink.batch import KEY_POINT_KINDS

# A branch of the skeleton that is shorter than the stroke is wide, or than this, comes from a rough edge.
_SHORTEST_BRANCH = 3
_TANGENT_SIGMA = 1.5
_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


@dataclass(frozen=True, eq=False)
class PixelLabels:
    """M skeleton pixels by column and then row: ``row`` and ``column`` (M,), ``tangent`` (M, 2), ``width`` (M,) float32,
    ``key_points`` (M, 3) bool, as in ``InkTarget``; corners are never marked."""

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    tangent: NDArray[np.float32]
    width: NDArray[np.float32]
    key_points: NDArray[np.bool_]


def label_pixels(is_ink: NDArray[np.bool_]) -> PixelLabels:
    """Label the pixels of ``is_ink`` (height, width). Tangents are the main direction of the skeleton's pixels around,
    widths come from the distance to the paper, end points have one neighbour on the skeleton and junctions at least
    three branches.
    """
    from skimage.morphology import skeletonize

    distance = ndimage.distance_transform_edt(np.pad(is_ink, 1))[1:-1, 1:-1]
    skeleton = _without_spurs(skeletonize(is_ink), distance)
    column, row = np.nonzero(skeleton.T)
    tangent = _tangents(skeleton)[:, row, column].T
    key_points = np.zeros((len(row), len(KEY_POINT_KINDS)), dtype=bool)
    for kind, marks in enumerate((_end_points(skeleton), _junctions(skeleton))):
        key_points[:, kind] = marks[row, column]
    # Of an odd number of pixels across, the middle one is half a pixel more than half the width from the paper's first centre.
    width = np.maximum(2 * distance[row, column] - 1, 1).astype(np.float32)
    return PixelLabels(row, column, tangent.astype(np.float32), width, key_points)


def _tangents(skeleton: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (2, height, width) cos 2θ and sin 2θ of the skeleton's main direction around each pixel; (1, 0) where
    there is none.
    """
    shift = np.arange(-4, 5)
    x, y = np.meshgrid(shift, shift)
    weight = np.exp(-(x * x + y * y) / (2 * _TANGENT_SIGMA**2))
    pixels = skeleton.astype(np.float64)
    total, mean_x, mean_y, xx_yy, xy = (
        ndimage.correlate(pixels, weight * moment, mode="constant")
        for moment in (np.ones_like(weight), x, y, x * x - y * y, x * y)
    )
    total = np.maximum(total, 1e-9)
    cos = xx_yy / total - (mean_x**2 - mean_y**2) / total**2
    sin = 2 * (xy / total - mean_x * mean_y / total**2)
    length = np.hypot(cos, sin)
    is_known = length > 1e-6
    return np.stack(
        (
            np.where(is_known, cos / np.maximum(length, 1e-9), 1.0),
            np.where(is_known, sin / np.maximum(length, 1e-9), 0.0),
        )
    )


def _ring(skeleton: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (8, height, width) the neighbours of each pixel, clockwise from the one above."""
    wide = np.pad(skeleton, 1)
    height, width = skeleton.shape
    return np.stack([wide[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in _RING])


def _end_points(skeleton: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels that one branch leaves: they have one neighbour, or two that touch each other."""
    ring = _ring(skeleton)
    branches = (ring & ~np.roll(ring, 1, axis=0)).sum(axis=0)
    return skeleton & (branches == 1) & (ring.sum(axis=0) <= 2)


def _junctions(skeleton: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels that at least three branches leave; of pixels of one junction the one nearest to their middle."""
    ring = _ring(skeleton)
    branches = (ring & ~np.roll(ring, 1, axis=0)).sum(axis=0)
    crowded = skeleton & ((branches >= 3) | (ring[::2].sum(axis=0) >= 3))
    groups, _ = ndimage.label(crowded, structure=np.ones((3, 3)))
    marks = np.zeros_like(skeleton)
    for number, place in enumerate(ndimage.find_objects(groups), start=1):
        rows, columns = np.nonzero(groups[place] == number)
        middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        marks[place[0].start + rows[middle], place[1].start + columns[middle]] = True
    return marks


def _without_spurs(skeleton: NDArray[np.bool_], distance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the skeleton less the short branches that end in nothing: from an end point to a junction, no longer than
    the stroke's half width at the junction plus ``_SHORTEST_BRANCH``. What is no branch, as a dot, stays.
    """
    kept = skeleton.copy()
    limit = _SHORTEST_BRANCH + int(distance.max(initial=0)) + 1
    for row, column in zip(*np.nonzero(_end_points(skeleton)), strict=True):
        branch = _walk_to_junction(kept, int(row), int(column), limit)
        if branch is None:
            continue
        *spur, junction = branch
        if len(spur) <= _SHORTEST_BRANCH + distance[junction]:
            for pixel in spur:
                kept[pixel] = False
            # What is left of it beside a line that passes by is no junction.
            if _num_branches(kept, *junction) == 1:
                kept[junction] = False
    return kept


def _num_branches(skeleton: NDArray[np.bool_], row: int, column: int) -> int:
    around = np.pad(skeleton[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2], 1)
    y, x = 1 + min(row, 1), 1 + min(column, 1)
    ring = np.array([around[y + dy, x + dx] for dy, dx in _RING])
    return int((ring & ~np.roll(ring, 1)).sum())


def _walk_to_junction(skeleton: NDArray[np.bool_], row: int, column: int, limit: int) -> list[tuple[int, int]] | None:
    """Return pixels from an end to the first that has more than one way on; None if there is none within ``limit``."""
    height, width = skeleton.shape
    path = [(row, column)]
    for _ in range(limit + 1):
        y, x = path[-1]
        onward = [
            (y + dy, x + dx)
            for dy, dx in _RING
            if 0 <= y + dy < height
            and 0 <= x + dx < width
            and skeleton[y + dy, x + dx]
            and (y + dy, x + dx) not in path
        ]
        # Neighbours that touch the pixel before belong to the same crowded spot.
        if len(onward) != 1:
            return path if len(path) > 1 and len(onward) > 1 else None
        path.append(onward[0])
    return None
