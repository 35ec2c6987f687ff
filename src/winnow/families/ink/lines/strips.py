"""All lines of a split side by side as strips of one height, with their labels, out of which tiles are cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from winnow.data.image import read_grey
from winnow.errors import DataError
from winnow.families.ink.lines.cutting import cut_line
from winnow.families.ink.lines.pages import PageLine, pages_of
from winnow.families.ink.lines.skeletons import label_pixels
from winnow.families.ink.tiles import InkTiles, join_tiles, no_tiles

logger = logging.getLogger(__name__)

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class InkStrips:
    """``image`` (size, columns) uint8 with 255 on ink; strip i are its columns ``bounds[i]:bounds[i + 1]``, at least ``size``
    of them, and was line ``line[i]`` of the list it was made of. M labelled pixels by column: ``row``, ``column`` (M,), the
    others as in ``InkTiles``."""

    image: NDArray[np.uint8]
    bounds: Indices
    line: Indices
    row: Indices
    column: Indices
    tangent: NDArray[np.float32]
    width: NDArray[np.float32]
    key_points: NDArray[np.bool_]

    @property
    def size(self) -> int:
        return self.image.shape[0]

    def grid(self) -> list[tuple[int, int]]:
        """Return (strip, first column within it) of the tiles side by side, the last one flush with the strip's end;
        those without ink are left out.
        """
        tiles = []
        for strip, (begin, stop) in enumerate(zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), strict=True)):
            last = stop - begin - self.size
            for left in [*range(0, last, self.size), last]:
                first, end = np.searchsorted(self.column, (begin + left, begin + left + self.size))
                if end > first:
                    tiles.append((strip, left))
        return tiles

    def cut(self, places: Sequence[tuple[int, int]]) -> InkTiles:
        """Cut a tile per (strip, first column within it); what would stick out of a strip is moved into it."""
        parts = [self._cut_one(strip, left) for strip, left in places]
        return join_tiles(parts) if parts else no_tiles(self.size, has_full_labels=False)

    def _cut_one(self, strip: int, left: int) -> InkTiles:
        begin, stop = self.bounds[strip], self.bounds[strip + 1]
        column = begin + min(max(left, 0), stop - begin - self.size)
        first, end = np.searchsorted(self.column, (column, column + self.size))
        chosen = np.s_[first:end]
        return InkTiles(
            images=self.image[None, :, column : column + self.size],
            starts=np.array([0, end - first]),
            pixel=self.row[chosen] * self.size + self.column[chosen] - column,
            tangent=self.tangent[chosen],
            width=self.width[chosen],
            offset=np.zeros((end - first, 2), dtype=np.float32),
            key_points=self.key_points[chosen],
            has_full_labels=False,
        )


def make_strips(lines: Sequence[PageLine], size: int) -> InkStrips:
    """Cut all ``lines`` out of their pages, ``size`` px high. Lines of a few px and without ink are left out. Raises
    DataError if a page can't be read or has another size than its lines were drawn on, or if nothing is left.
    """
    numbers = {id(line): number for number, line in enumerate(lines)}
    images, kept, labels = [], [], []
    columns = 0
    logger.info("cutting %d lines out of %d pages", len(lines), len(pages_of(lines)))
    for path, on_page in pages_of(lines).items():
        page = read_grey(path, *on_page[0].page_size)
        for line in on_page:
            strip = cut_line(page, line, size)
            found = None if strip is None else label_pixels(strip.is_ink)
            if strip is None or found is None or not len(found.row):
                logger.warning("%s: line %s is too small or holds no ink; left out", path.name, line.line_id)
                continue
            image = np.round(strip.ink * 255).astype(np.uint8)
            images.append(np.pad(image, ((0, 0), (0, max(0, size - image.shape[1])))))
            kept.append(numbers[id(line)])
            labels.append((found, columns))
            columns += images[-1].shape[1]
    if not images:
        raise DataError(f"none of the {len(lines)} lines holds ink")
    return InkStrips(
        image=np.concatenate(images, axis=1),
        bounds=np.cumsum([0, *(image.shape[1] for image in images)]),
        line=np.array(kept),
        row=np.concatenate([found.row for found, _ in labels]),
        column=np.concatenate([found.column + begin for found, begin in labels]),
        tangent=np.concatenate([found.tangent for found, _ in labels]),
        width=np.concatenate([found.width for found, _ in labels]),
        key_points=np.concatenate([found.key_points for found, _ in labels]),
    )
