"""``data=ink_lines``: tiles of real handwriting, cut from the text lines of scanned pages, with skeletons from their pixels."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from winnow.builders import builder
from winnow.data.plan import LoadingSettings, SampleKey
from winnow.data.splits import SplitData, chosen_samples
from winnow.errors import DataError
from winnow.families.ink.data import ink_data
from winnow.families.ink.lines.check import check_ink_lines
from winnow.families.ink.lines.pages import PageLine, read_pages
from winnow.families.ink.lines.settings import InkLinesSettings, PagesSettings
from winnow.families.ink.lines.strips import InkStrips, make_strips
from winnow.families.ink.store import stored
from winnow.families.ink.tiles import InkTiles, no_tiles
from winnow.reading import naming
from winnow.settings import build_settings

logger = logging.getLogger(__name__)

# Version of the cutting algorithm, part of the cache file's name.
_VERSION = 2


class CutLines:
    """The strips of ``lines``, which ``annotations`` names: those of a size are cut once and kept in ``cache``."""

    def __init__(self, lines: Sequence[PageLine], cache: Path, annotations: str) -> None:
        self.lines = lines
        self._annotations = annotations
        self._cache = cache
        self._digest = _digest(lines)
        self._of_size: dict[int, InkStrips] = {}

    def strips(self, size: int) -> InkStrips:
        if size not in self._of_size:
            path = self._cache / f"strips_v{_VERSION}_{size}px_{self._digest}.npz"
            with naming(self._annotations, "a page of "):
                self._of_size[size] = stored(path, InkStrips, lambda: make_strips(self.lines, size))
        return self._of_size[size]


class LineTiles:
    """A tile per place, (strip, first column) at ``size`` px, moved sideways by up to ``shift`` px as a function of (seed,
    epoch, index)."""

    def __init__(self, cut: CutLines, size: int, places: Sequence[tuple[int, int]], shift: int, seed: int) -> None:
        self._cut = cut
        self._size = size
        self._places = places
        self._shift = shift
        self._seed = seed

    def __len__(self) -> int:
        return len(self._places)

    def tiles(self, keys: Sequence[SampleKey]) -> InkTiles:
        if not keys:
            return no_tiles(self._size, has_full_labels=False)
        size = keys[0].image_size
        places = [self._place(key) for key in keys]
        return self._cut.strips(size).cut([(strip, round(left * size / self._size)) for strip, left in places])

    def image_ids(self, keys: Sequence[SampleKey]) -> list[int | str]:
        line_of_strip = self._cut.strips(self._size).line
        places = [self._place(key) for key in keys]
        lines = [self._cut.lines[line_of_strip[strip]] for strip, _ in places]
        return [
            f"{line.image.stem}_line_{line.line_id}_column_{left}"
            for line, (_, left) in zip(lines, places, strict=True)
        ]

    def _place(self, key: SampleKey) -> tuple[int, int]:
        strip, left = self._places[key.sample]
        if self._shift:
            rng = np.random.default_rng([self._seed, key.epoch, key.sample])
            left += int(rng.integers(-self._shift, self._shift + 1))
        return strip, left


def _digest(lines: Sequence[PageLine]) -> str:
    """Return a digest that changes when the lines or their page files do."""
    sha = hashlib.sha256()
    for image in sorted({line.image for line in lines}):
        status = image.stat()
        sha.update(f"{image.name} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogatepass"))
    for line in lines:
        sha.update(f"{line.image.name} {line.line_id}".encode(errors="surrogatepass"))
        sha.update(line.polygon.tobytes() + line.baseline.tobytes())
    return sha.hexdigest()[:16]


def split_lines(
    lines: Sequence[PageLine], val_part: float, split_by: Literal["page", "line"]
) -> tuple[list[PageLine], list[PageLine]]:
    """Return training and validation lines: whole pages, or single lines, in an order that depends on their names
    alone, of which the first ``val_part`` are held out, at least one. Raises DataError if nothing would be left to
    train on.
    """
    names = [line.image.stem if split_by == "page" else f"{line.image.stem} {line.line_id}" for line in lines]
    order = sorted(set(names), key=lambda name: hashlib.sha256(name.encode(errors="surrogatepass")).digest())
    held_out = set(order[: max(1, math.floor(val_part * len(order)))])
    if len(held_out) == len(order):
        raise DataError(
            f"one {split_by} can't be split for validation; name pages for it in data.val, or more for data.train"
        )
    parts: tuple[list[PageLine], list[PageLine]] = ([], [])
    for line, name in zip(lines, names, strict=True):
        parts[name in held_out].append(line)
    return parts


@builder(InkLinesSettings, check=check_ink_lines)
def ink_lines(*, loading: LoadingSettings, **values: Any) -> SplitData:
    """Build the data of tiles of pages of your own; ``data.val`` may be null: then a part of the training pages is held out."""
    settings = build_settings(InkLinesSettings, values, "data")
    train_lines = _read(settings.train)
    val_pages = settings.val or settings.train
    if settings.val is not None:
        val_lines = _read(settings.val)
    else:
        train_lines, val_lines = split_lines(train_lines, settings.val_part, settings.split_by)
    size, cache = settings.image_size, Path(settings.cache)
    cut = CutLines(train_lines, cache, settings.train.annotations)
    grid = cut.strips(size).grid()
    places = [grid[index] for index in chosen_samples(len(grid), loading)]
    if loading.overfit is not None:
        train = val = LineTiles(cut, size, places, 0, loading.seed)
        val_lines, val_cut = train_lines, cut
    else:
        val_cut = CutLines(val_lines, cache, val_pages.annotations)
        train = LineTiles(cut, size, places, settings.shift, loading.seed)
        val = LineTiles(val_cut, size, val_cut.strips(size).grid(), 0, loading.seed)
    sha = hashlib.sha256(f"{_VERSION} {settings.shift} {places} {loading.overfit}".encode(errors="surrogatepass"))
    for part in (cut, val_cut):
        sha.update(part.strips(size).image.tobytes())
    for name, lines, tiles in (("train", train_lines, train), ("val", val_lines, val)):
        pages = len({line.image for line in lines})
        logger.info(
            "%-5s %d tiles of %d px from %d lines of %d pages", name, len(tiles), settings.image_size, len(lines), pages
        )
    return ink_data(train, val, size, loading, sha.hexdigest()[:16])


def _read(pages: PagesSettings) -> list[PageLine]:
    lines = read_pages(Path(pages.annotations), Path(pages.images))
    if not lines:
        raise DataError(f"{pages.annotations} holds no text line")
    return lines
