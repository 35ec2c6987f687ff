"""Pictures to predict on, as people have them: files, arrays or tensors, each as upright RGB pixels with a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from winnow.data.image import read_upright
from winnow.data.pixel_rule import PLAIN, PixelRule
from winnow.errors import ConfigError, DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Picture:
    """``pixels`` (H, W, 3) uint8 RGB, None where it could not be read, and then ``problem`` says why."""

    name: str
    pixels: np.ndarray | None
    problem: str | None = None


def pictures_below(paths: Sequence[str | Path]) -> list[Path]:
    """Return the files that ``paths`` name: a folder stands for the pictures in it and below, in order of their names. Raises
    DataError for a path that is not there or a folder without a picture."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise DataError(f"{path} holds no picture ({', '.join(sorted(SUFFIXES))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist")
    return found


def pixel_rule_of(data: Mapping[str, Any]) -> PixelRule:
    """Return how the run whose node ``data`` is took pixels, for pictures without annotations."""
    depth = data.get("depth", PLAIN.depth)
    return PixelRule(
        exif="auto",
        depth=tuple(depth) if isinstance(depth, list) else depth,
        max_pixels=data.get("max_pixels", PLAIN.max_pixels),
        mends_ends="jpeg_ends" in (data.get("mend") or ()),
    )


def read_picture(source: Any, number: int, exif: str, rule: PixelRule = PLAIN) -> Picture:
    """Return picture ``number`` of a sequence: a path, whose pixels are taken by ``rule``, a (H, W), (H, W, 3) or (3, H, W) uint8
    array, or a tensor of that kind. A file that can't be read is a picture with a ``problem``. Raises ConfigError for what is no
    picture at all."""
    if isinstance(source, str | Path):
        try:
            return Picture(str(source), read_upright(Path(source), exif != "never", rule))
        except DataError as error:
            return Picture(str(source), None, str(error))
    return Picture(str(number), _pixels(source, number))


def in_batches(sources: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of ``size``, the last one maybe shorter."""
    batch: list[Any] = []
    for source in sources:
        batch.append(source)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _pixels(source: Any, number: int) -> np.ndarray:
    array = source.detach().cpu().numpy() if isinstance(source, torch.Tensor) else source
    if not isinstance(array, np.ndarray):
        raise ConfigError(
            f"picture {number} is a {type(source).__name__}; give a path, a uint8 array or a uint8 tensor"
        )
    if array.dtype != np.uint8:
        raise ConfigError(f"picture {number} holds {array.dtype}, and must hold uint8 from 0 to 255")
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ConfigError(f"picture {number} has shape {array.shape}; allowed: (H, W), (H, W, 3) or (3, H, W)")
    return np.require(array, requirements=["C", "W"])
