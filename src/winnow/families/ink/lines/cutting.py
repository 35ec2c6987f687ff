"""Cutting a line out of a page: to a level strip of one height, with the ink taken off the paper."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from winnow.families.ink.lines.pages import PageLine

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]

# Paper above and below the line, in px of the strip.
_MARGIN = 2
# Parts of a polygon's outline that may stick out of the strip, as the tip of one long ascender.
_STICKING_OUT = 0.02
# A mark that is smaller, px, is dirt.
_SPECK = 6
# Ink that is paler than this part of the line's darkest is paper.
_FAINTEST = 0.3
_SAUVOLA_K = 0.15


@dataclass(frozen=True, eq=False)
class Strip:
    """``ink`` (size, n) float32 in [0, 1], ink 1 on 0, and ``is_ink`` (size, n) bool, what of it is stroke."""

    ink: Array
    is_ink: NDArray[np.bool_]


def cut_line(page: NDArray[np.uint8], line: PageLine, size: int) -> Strip | None:
    """Return the line scaled to ``size`` px from its highest to its lowest ink and straightened along its baseline;
    None if it is less than a few px high or wide. ``page`` (height, width) grey.
    """
    frame = _Frame(line, size)
    if frame.width < size // 4 or not 0 < frame.scale < size / 4:
        return None
    column, row = np.meshgrid(np.arange(frame.width) + 0.5, np.arange(size) + 0.5)
    x, y = frame.to_page(column, row)
    grey, left, top = _surroundings(page, x, y, frame.scale)
    # Pixel centres are at half numbers, map_coordinates counts them from 0.
    place = np.stack((y - top - 0.5, x - left - 0.5))
    strip = ndimage.map_coordinates(grey, place, order=1, mode="nearest", prefilter=False)
    return _extract_ink(strip, frame.mask())


class _Frame:
    """Where the pixels of a strip lie on the page: turned by the baseline's direction, each column shifted onto the
    baseline."""

    def __init__(self, line: PageLine, size: int) -> None:
        start, stop = line.baseline[0], line.baseline[-1]
        direction = (stop - start) / np.hypot(*(stop - start))
        self._origin = start
        self._turn = np.array([direction, [-direction[1], direction[0]]])
        along, below = self._turn @ (line.baseline - start).T
        order = np.argsort(along, kind="stable")
        self._baseline = along[order], below[order]
        outline = self._turn @ (_sample_outline(line.polygon) - start).T
        height = outline[1] - np.interp(outline[0], *self._baseline)
        top, bottom = np.quantile(height, (_STICKING_OUT, 1 - _STICKING_OUT))
        self._left, self._top = outline[0].min(), top
        self.scale = (size - 2 * _MARGIN) / max(bottom - top, 1e-6)
        self.width = int(np.ceil((outline[0].max() - self._left) * self.scale))
        self._outline = (outline[0] - self._left) * self.scale, (height - top) * self.scale + _MARGIN
        self._size = size

    def to_page(self, column: NDArray[np.float64], row: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        along = column / self.scale + self._left
        below = (row - _MARGIN) / self.scale + self._top + np.interp(along, *self._baseline)
        (a, b), (c, d) = self._turn
        return along * a + below * c + self._origin[0], along * b + below * d + self._origin[1]

    def mask(self) -> NDArray[np.bool_]:
        """Return (size, width) bool, True inside the polygon and a pixel around it."""
        canvas = Image.new("1", (self.width, self._size))
        ImageDraw.Draw(canvas).polygon(list(zip(*self._outline, strict=True)), fill=1)
        return ndimage.binary_dilation(np.asarray(canvas), iterations=1)


def _sample_outline(polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points every px or so along the closed outline, so that each side counts by its length."""
    closed = np.concatenate((polygon, polygon[:1]))
    length = np.concatenate(([0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))))
    at = np.linspace(0, length[-1], max(int(length[-1]), 4))
    return np.stack([np.interp(at, length, closed[:, axis]) for axis in range(2)], axis=1)


def _surroundings(
    page: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64], scale: float
) -> tuple[Array, int, int]:
    """Return the part of the page under the points, smoothed where it will be made smaller, and the page's px at its
    left and top.
    """
    height, width = page.shape
    left, top = (int(np.clip(np.floor(values.min()) - 3, 0, limit - 1)) for values, limit in ((x, width), (y, height)))
    right, bottom = (int(np.clip(np.ceil(values.max()) + 3, 1, limit)) for values, limit in ((x, width), (y, height)))
    part = page[top : max(bottom, top + 1), left : max(right, left + 1)].astype(np.float32)
    if scale < 1:
        part = ndimage.gaussian_filter(part, 0.4 * (1 / scale**2 - 1) ** 0.5)
    return part, left, top


def _paper(grey: Array) -> Array:
    """Return the brightness of the paper, also under the ink: what is bright around, within a third of the height.
    Found on every fourth pixel, because ranks cost much and paper changes slowly.
    """
    coarse = ndimage.gaussian_filter(grey, 1.0)[::4, ::4]
    reach = max(len(coarse) // 3, 3)
    coarse = ndimage.gaussian_filter(ndimage.percentile_filter(coarse, 80, size=reach), reach / 2)
    rows, columns = np.arange(grey.shape[0]) / 4, np.arange(grey.shape[1]) / 4
    return ndimage.map_coordinates(coarse, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")


def _extract_ink(grey: Array, mask: NDArray[np.bool_]) -> Strip:
    """Return darkness relative to the paper around, from 0 to 1 as the line's darkest ink, and Sauvola's threshold on it."""
    from skimage.filters import threshold_sauvola
    from skimage.morphology import remove_small_objects

    paper = _paper(grey)
    darkness = np.clip((paper - grey) / np.maximum(paper, 1), 0, 1) * mask
    inside = darkness[mask]
    darkest = float(np.quantile(inside, 0.98)) if inside.size else 0.0
    ink = np.clip(darkness / max(darkest, 1e-3), 0, 1).astype(np.float32)
    window = len(grey) // 2 | 1
    is_ink = (1 - ink < threshold_sauvola(1 - ink, window_size=window, k=_SAUVOLA_K, r=0.5)) & (ink > _FAINTEST) & mask
    return Strip(ink, remove_small_objects(is_ink, max_size=_SPECK - 1, connectivity=2))
