"""``data=ink_strokes``: drawn strokes with exact labels, new ones in every epoch, and a validation set that is drawn once."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from winnow.builders import builder
from winnow.data.check import DataReport, Finding, SplitProgress, SplitReport
from winnow.data.plan import LoadingSettings, SampleKey
from winnow.data.splits import SplitData, chosen_samples
from winnow.errors import DataError
from winnow.families.ink.data import ink_data
from winnow.families.ink.store import stored
from winnow.families.ink.strokes.drawing import NUM_DRAWN, NUM_LEVELS, draw_strokes
from winnow.families.ink.strokes.render import render
from winnow.families.ink.strokes.spoiling import NUM_DRAWN as NUM_SPOILING
from winnow.families.ink.strokes.spoiling import spoil
from winnow.families.ink.tiles import InkTiles, join_tiles, no_tiles
from winnow.settings import MAX_IMAGE_SIZE, Settings, build_settings

logger = logging.getLogger(__name__)

# Version of the drawing algorithm, part of the cache file's name.
_VERSION = 1
# The arrays of so many tiles fit a core's cache together.
_AT_ONCE = 16
# Training tiles of a level that a check draws.
_CHECKED_TILES = 64


class InkStrokesSettings(Settings):
    """The keys of ``conf/data/ink_strokes.yaml``."""

    name: str
    root: str
    num_train: int = Field(gt=0)
    num_val: int = Field(ge=0)
    image_size: int = Field(ge=32, le=MAX_IMAGE_SIZE)
    curriculum: int | list[tuple[int, int]]
    easier: float = Field(ge=0, le=1, strict=False)
    val_level: int | None = Field(ge=1, le=NUM_LEVELS)
    seed: int = Field(ge=0)
    noise: float = Field(ge=0, le=1, strict=False)
    blur: float = Field(ge=0, le=1.5, strict=False)
    texture: float = Field(ge=0, le=1, strict=False)
    affine: float = Field(ge=0, le=1, strict=False)

    @field_validator("curriculum", mode="before")
    @classmethod
    def _is_level_or_schedule(cls, value: Any) -> Any:
        entries = [[1, value]] if isinstance(value, int) else value
        is_list = isinstance(entries, list | tuple) and all(isinstance(entry, list | tuple) for entry in entries)
        if not is_list or not all(len(entry) == 2 and all(type(part) is int for part in entry) for entry in entries):
            raise ValueError("must be a level, or a list of [epoch, level]")
        if not all(1 <= level <= NUM_LEVELS for _, level in entries):
            raise ValueError(f"levels go from 1 to {NUM_LEVELS}")
        epochs = [epoch for epoch, _ in entries]
        if epochs[:1] != [1] or any(later <= earlier for earlier, later in itertools.pairwise(epochs)):
            raise ValueError("must begin at epoch 1, its epochs rising")
        return [(epoch, level) for epoch, level in entries]

    def level_at(self, epoch: int) -> int:
        schedule = self.curriculum if isinstance(self.curriculum, list) else [(1, self.curriculum)]
        return schedule[bisect.bisect_right([begin for begin, _ in schedule], max(epoch, 1)) - 1][1]


class DrawnStrokes:
    """Training tiles: each a function of (seed, epoch, index, level), the level one of the first three, so that it reaches
    running workers with the keys they are asked for. With ``frozen`` every epoch is the first one."""

    def __init__(self, settings: InkStrokesSettings, seed: int, indices: Sequence[int], frozen: bool) -> None:
        self._settings = settings
        self._seed = seed
        self._indices = indices
        self._frozen = frozen

    def __len__(self) -> int:
        return len(self._indices)

    def tiles(self, keys: Sequence[SampleKey]) -> InkTiles:
        if not keys:
            return no_tiles(self._settings.image_size, has_full_labels=True)
        cells = [self._cell(key) for key in keys]
        return draw_tiles(self._settings, self._seed, cells, keys[0].image_size)

    def image_ids(self, keys: Sequence[SampleKey]) -> list[int | str]:
        return [f"epoch{epoch}_{index}_level{level}" for epoch, index, level in map(self._cell, keys)]

    def _cell(self, key: SampleKey) -> tuple[int, int, int]:
        epoch, index = 1 if self._frozen else key.epoch, self._indices[key.sample]
        level, easier = self._settings.level_at(epoch), self._settings.easier
        if easier and level > 1:
            chance = float(np.random.default_rng([self._seed, epoch, index]).random())
            if chance < easier:
                level = 1 + int(chance / easier * (level - 1))
        return epoch, index, level


class StoredStrokes:
    """The validation set: drawn once for its settings and a size, kept under ``data.root``, read from there ever after,
    whatever the seed of the training."""

    def __init__(self, settings: InkStrokesSettings) -> None:
        self._settings = settings
        self._of_size: dict[int, InkTiles] = {}

    def __len__(self) -> int:
        return self._settings.num_val

    def tiles(self, keys: Sequence[SampleKey]) -> InkTiles:
        if not keys:
            return no_tiles(self._settings.image_size, has_full_labels=True)
        return self.all(keys[0].image_size).take([key.sample for key in keys])

    def image_ids(self, keys: Sequence[SampleKey]) -> list[int | str]:
        return [f"val_{key.sample}_level{self._level(key.sample)}" for key in keys]

    def all(self, size: int) -> InkTiles:
        if size not in self._of_size:
            self._of_size[size] = stored(self.path(size), InkTiles, lambda: self.draw(size))
        return self._of_size[size]

    def path(self, size: int) -> Path:
        settings = self._settings
        return Path(settings.root) / f"val_v{_VERSION}_{settings.num_val}x{size}px_{self._digest()}.npz"

    def draw(self, size: int) -> InkTiles:
        """Return the set drawn anew, whatever is kept."""
        cells = [(0, index, self._level(index)) for index in range(self._settings.num_val)]
        return draw_tiles(self._settings, self._settings.seed, cells, size)

    def _level(self, index: int) -> int:
        return self._settings.val_level or 1 + index % NUM_LEVELS

    def _digest(self) -> str:
        names = ("seed", "val_level", "noise", "blur", "texture", "affine")
        values = {name: getattr(self._settings, name) for name in names}
        return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


def draw_tiles(settings: InkStrokesSettings, seed: int, cells: Sequence[tuple[int, int, int]], size: int) -> InkTiles:
    """Draw a tile of ``size`` px per (epoch, index, level), each a function of these, ``seed`` and the settings alone."""
    parts = [
        _draw_few(settings, seed, cells[begin : begin + _AT_ONCE], size) for begin in range(0, len(cells), _AT_ONCE)
    ]
    return join_tiles(parts) if parts else no_tiles(size, has_full_labels=True)


def _draw_few(settings: InkStrokesSettings, seed: int, cells: Sequence[tuple[int, int, int]], size: int) -> InkTiles:
    generators = [np.random.default_rng([seed, *cell]) for cell in cells]
    drawn = np.stack([rng.random(NUM_DRAWN) for rng in generators])
    ink, tiles = render(draw_strokes(drawn, np.array([level for _, _, level in cells]), size, settings.affine))
    normal: NDArray[np.float32] | None = None
    spoiling = np.stack([rng.random(NUM_SPOILING, dtype=np.float32) for rng in generators])
    if settings.noise:
        normal = np.stack([rng.standard_normal((size, size), dtype=np.float32) for rng in generators])
    ink = spoil(ink, spoiling, normal, settings.texture, settings.blur, settings.noise)
    return tiles.with_images((ink * 255 + 0.5).astype(np.uint8))


def check_ink_strokes(settings: InkStrokesSettings, progress: SplitProgress) -> DataReport:
    """Draw a few training tiles of each level of the curriculum, with ``data.seed``, and the validation set; hold the kept file
    of it, where there is one, against what is drawn. Writes nothing."""
    schedule = settings.curriculum if isinstance(settings.curriculum, list) else [(1, settings.curriculum)]
    indices = range(min(settings.num_train, _CHECKED_TILES))
    parts = []
    for done, (epoch, level) in enumerate(schedule, start=1):
        cells = [(epoch, index, level) for index in indices]
        parts.append(draw_tiles(settings, settings.seed, cells, settings.image_size))
        progress("train", done, len(schedule))
    names = [f"epoch{epoch}_{index}_level{level}" for epoch, level in schedule for index in indices]
    words = f"drawn, levels {', '.join(str(level) for _, level in schedule)}"
    reports = {"train": _report_of_tiles(join_tiles(parts), names, words, ())}
    if settings.num_val:
        val = StoredStrokes(settings)
        drawn, path = val.draw(settings.image_size), val.path(settings.image_size)
        names = [str(name) for name in val.image_ids([SampleKey(0, index, 0) for index in range(len(val))])]
        found = _compare_kept(path, drawn) if path.exists() else ()
        reports["val"] = _report_of_tiles(drawn, names, str(path) if path.exists() else "drawn, not kept yet", found)
        progress("val", len(val), len(val))
    return DataReport(reports)


def _report_of_tiles(tiles: InkTiles, names: Sequence[str], words: str, found: Sequence[Finding]) -> SplitReport:
    """Return the report on tiles: its images are tiles, its annotations their key points."""
    empty = [names[index] for index in np.flatnonzero(np.diff(tiles.starts) == 0).tolist()]
    found = (*found, *(Finding("tile without ink", name, None, "", is_problem=False) for name in empty))
    return SplitReport(words, len(tiles), int(tiles.key_points.sum()), found)


def _compare_kept(path: Path, drawn: InkTiles) -> tuple[Finding, ...]:
    try:
        kept = stored(path, InkTiles, lambda: drawn)
    except DataError as error:
        return (Finding("unreadable file", path.name, None, str(error)),)
    if all(np.array_equal(value, getattr(kept, name)) for name, value in vars(drawn).items()):
        return ()
    detail = "it is not what these settings draw today; delete it to have it drawn again, which begins another validation set"
    return (Finding("kept tiles differ", path.name, None, detail),)


@builder(InkStrokesSettings, check=check_ink_strokes)
def ink_strokes(*, loading: LoadingSettings, **values: Any) -> SplitData:
    """Build the data of drawn strokes; the validation set is kept under ``data.root``."""
    settings = build_settings(InkStrokesSettings, values, "data")
    indices = chosen_samples(settings.num_train, loading)
    is_overfit = loading.overfit is not None
    train = DrawnStrokes(settings, loading.seed, indices, frozen=is_overfit)
    stored = StoredStrokes(settings)
    val = train if is_overfit else stored
    drawn = settings.model_dump(exclude={"name", "root", "image_size"})
    sha = hashlib.sha256(f"{_VERSION} {drawn} {indices} {is_overfit}".encode())
    if not is_overfit and settings.num_val:
        sha.update(stored.all(settings.image_size).images.tobytes())
    logger.info("train %d tiles of %d px per epoch, levels %s", len(indices), settings.image_size, settings.curriculum)
    logger.info("val   %d tiles, level %s", len(val), settings.val_level or f"1 to {NUM_LEVELS}")
    return ink_data(train, val, settings.image_size, loading, sha.hexdigest()[:16])
