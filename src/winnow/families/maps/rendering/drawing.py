"""A flat ground painted from above: road, crossings, dividers and edges, as pixels that cameras look up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from winnow.families.maps.frame import Array, Region

PIXEL_M = 0.15
"""The side of a pixel of the painted ground."""
PAINTED = Region(60.0, 120.0)
"""What is painted around the origin; further out the ground is plain."""
LEVELS = 4
"""The ground is kept at this many sizes, each half of the one before, for what is far away."""

_WIDTH, _HEIGHT = round(PAINTED.width / PIXEL_M), round(PAINTED.length / PIXEL_M)
LEVEL_SHAPES = tuple((_HEIGHT >> level, _WIDTH >> level) for level in range(LEVELS))
"""Rows and columns of each level."""
LEVEL_STARTS = tuple(int(start) for start in np.cumsum([0, *(rows * columns for rows, columns in LEVEL_SHAPES)]))
"""Where each level begins among the pixels; at the last of these stand plain ground and sky."""
PLAIN, SKY = LEVEL_STARTS[-1], LEVEL_STARTS[-1] + 1

# Red, green, blue; each sample has them a little different.
_GROUND, _ROAD, _CROSSING, _EDGE, _LINE, _SKY = (
    (104, 112, 90), (84, 84, 88), (176, 176, 180), (190, 150, 96), (236, 236, 232), (168, 190, 216),
)  # fmt: skip
_LINE_PX = 3


class Drawing(NamedTuple):
    """What is painted, (P, 2) points each in the map's frame: ``roads`` and ``crossings`` as (outer ring, rings of holes)."""

    roads: Sequence[tuple[Array, Sequence[Array]]]
    crossings: Sequence[tuple[Array, Sequence[Array]]]
    dividers: Sequence[Array]


def paint(drawing: Drawing, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the pixels (N, 3) of all levels, plain ground and sky."""
    ground, road, crossing, edge, line, sky = (
        _varied(colour, rng) for colour in (_GROUND, _ROAD, _CROSSING, _EDGE, _LINE, _SKY)
    )
    image = Image.new("RGB", (_WIDTH, _HEIGHT), ground)
    draw = ImageDraw.Draw(image)
    for outer, holes in drawing.roads:
        draw.polygon(_pixels(outer), fill=road)
        for hole in holes:
            draw.polygon(_pixels(hole), fill=ground)
    for outer, _ in drawing.crossings:
        draw.polygon(_pixels(outer), fill=crossing)
        draw.line(_pixels(outer), fill=line, width=_LINE_PX)
    for points in drawing.dividers:
        draw.line(_pixels(points), fill=line, width=_LINE_PX)
    for outer, holes in drawing.roads:
        for ring in (outer, *holes):
            draw.line(_pixels(ring), fill=edge, width=_LINE_PX)
    levels = [image]
    while len(levels) < LEVELS:
        levels.append(levels[-1].reduce(2))
    ends = np.array([ground, sky], np.uint8)
    return np.concatenate([*(np.asarray(level).reshape(-1, 3) for level in levels), ends])


def place_of(points: Array, footprint_m: Array) -> NDArray[np.int32]:
    """Return where among the pixels (N, 2) points of the ground stand, at the level of their ``footprint_m`` (N,): NaN is sky."""
    is_sky = np.isnan(points[:, 0])
    x, y = np.where(is_sky[:, None], 0.0, points).T
    level = np.clip(
        np.round(np.log2(np.maximum(np.nan_to_num(footprint_m, nan=1.0), PIXEL_M) / PIXEL_M)), 0, LEVELS - 1
    )
    level = level.astype(int)
    side = PIXEL_M * 2.0**level
    shapes = np.array(LEVEL_SHAPES)[level]
    low_x, _, high_x, high_y = PAINTED.bounds()
    is_plain = (np.abs(x) >= high_x) | (np.abs(y) >= high_y)
    column = np.clip(((np.clip(x, low_x, high_x) - low_x) / side).astype(int), 0, shapes[:, 1] - 1)
    row = np.clip(((high_y - np.clip(y, -high_y, high_y)) / side).astype(int), 0, shapes[:, 0] - 1)
    place = np.array(LEVEL_STARTS)[level] + row * shapes[:, 1] + column
    return np.where(is_sky, SKY, np.where(is_plain, PLAIN, place)).astype(np.int32)


def _pixels(points: Array) -> list[tuple[float, float]]:
    low_x, _, _, high_y = PAINTED.bounds()
    # Pillow's whole numbers are the centres of pixels.
    return [((x - low_x) / PIXEL_M - 0.5, (high_y - y) / PIXEL_M - 0.5) for x, y in points.tolist()]


def _varied(colour: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(colour) + rng.integers(-14, 15, 3), 0, 255).tolist()
    return red, green, blue
