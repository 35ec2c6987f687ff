"""Pictures to predict on, as people have them: files, arrays or tensors, each as upright RGB pixels with a name."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """``pixels`` (H, W, 3) uint8 RGB, None where it could not be read, and then ``problem`` says why. Where a sample is several
    pictures, ``pixels`` has one after the other, None for one that is absent; where it is more, it is what the family reads."""

    name: str
    pixels: Any
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


def partners_below(paths: Sequence[str | Path], folder: Path) -> list[tuple[Path, Path]]:
    """Return each picture of ``pictures_below`` with its partner in ``folder``: the file of the same place and name below it, of
    any suffix of a picture. Where that is not there, the partner is the name that it should have. Raises DataError where
    ``folder`` is none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    pairs = []
    for root in map(Path, paths):
        for path in pictures_below([root]):
            wanted = folder / (path.relative_to(root) if root.is_dir() else path.name)
            others = sorted(wanted.parent.glob(f"{glob.escape(wanted.stem)}.*")) if not wanted.exists() else []
            others = [other for other in others if other.suffix.lower() in SUFFIXES]
            pairs.append((path, others[0] if len(others) == 1 else wanted))
    return pairs


def read_sample(source: Any, number: int, exif: str, parts: Sequence[str], rule: PixelRule = PLAIN) -> Picture:
    """Return sample ``number`` of a sequence: a picture as ``read_picture`` does, or of several ``parts`` as many of them, None
    for one that is absent."""
    if not parts:
        return read_picture(source, number, exif, rule)
    if not is_sample(source, parts):
        raise ConfigError(
            f"sample {number} is {source!r:.100}; this model looks at ({', '.join(parts)}), None where there is none"
        )
    read = [None if one is None else read_picture(one, number, exif, rule) for one in source]
    problems = [picture.problem for picture in read if picture is not None and picture.problem is not None]
    name = next(picture.name for picture in read if picture is not None)
    if problems:
        return Picture(name, None, "; ".join(problems))
    return Picture(name, tuple(None if picture is None else picture.pixels for picture in read))


def read_own(read: Callable[[Any, int], tuple[str, Any]], source: Any, number: int) -> Picture:
    """Return sample ``number`` as a family reads it whose samples are more than pictures, or with the ``problem`` that it has."""
    try:
        return Picture(*read(source, number))
    except DataError as error:
        return Picture(str(number), None, str(error))


def is_sample(source: Any, parts: Sequence[str]) -> bool:
    """Tell whether ``source`` is one sample: of several ``parts`` a tuple of as many, of which one is there."""
    if not parts:
        return _is_picture(source)
    whole = isinstance(source, tuple | list) and len(source) == len(parts)
    return whole and any(one is not None for one in source) and all(one is None or _is_picture(one) for one in source)


def _is_picture(source: Any) -> bool:
    return isinstance(source, str | Path) or hasattr(source, "shape")


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
