"""What an ink model finds in pictures of text lines: pictures as tiles in, one map per line out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from winnow.errors import DataError
from winnow.families.ink.batch import KEY_POINT_KINDS, InkBatch
from winnow.families.ink.lines.cutting import cut_line
from winnow.families.ink.lines.pages import PageLine
from winnow.families.ink.predictions import InkPredictions
from winnow.families.ink.tiles import InkTiles, join_tiles, no_tiles


@dataclass(frozen=True)
class LineInPicture:
    """A picture as a line of text: its name, its size (height, width) in px, and how many columns of the strip that was made of
    it are ink's; the rest of its last tile is empty."""

    name: str
    size: tuple[int, int]
    columns: int


@dataclass(frozen=True)
class PictureTiles(InkBatch):
    """Tiles side by side of one line after the other, without truth."""

    lines: Sequence[LineInPicture] = ()


@dataclass(frozen=True)
class FoundInk:
    """What was found in one line of text. ``skeleton`` (S, W) float32 is the probability of centre-line and ``tangent`` (2, S, W)
    cos 2θ and sin 2θ, on the line scaled to S px in height: multiply by ``scale`` for pixels of the picture. ``key_points``
    (K, 2) float32 are (x, y) in pixels of the picture with ``scores`` (K,) in descending order and ``kinds``, names of
    ``KEY_POINT_KINDS``; none where the model has no full heads."""

    name: str
    size: tuple[int, int]
    scale: float
    skeleton: Tensor
    tangent: Tensor
    key_points: Tensor
    scores: Tensor
    kinds: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        points = zip(self.kinds, self.key_points.tolist(), self.scores.tolist(), strict=True)
        return {
            "file_name": self.name,
            "height": self.size[0],
            "width": self.size[1],
            "key_points": [{"kind": kind, "x": x, "y": y, "score": score} for kind, (x, y), score in points],
        }

    def draw(self, pixels: np.ndarray, min_score: float) -> Image.Image:
        """Draw the centre-line in orange and key points of at least ``min_score`` as squares onto ``pixels`` (H, W, 3) uint8."""
        height, width = pixels.shape[:2]
        line = Image.fromarray((self.skeleton.numpy() * 255).round().astype(np.uint8))
        line = line.resize((max(1, round(line.width * self.scale)), height)).crop((0, 0, width, height))
        drawn = pixels.copy()
        drawn[np.asarray(line) > 127] = _LINE
        for (x, y), score in zip(self.key_points.tolist(), self.scores.tolist(), strict=True):
            if score >= min_score:
                drawn[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3] = _POINT
        return Image.fromarray(drawn)


_LINE, _POINT = (251, 146, 60), (37, 99, 235)


def tiles_of_pictures(pixels: Sequence[np.ndarray], names: Sequence[str], size: int) -> PictureTiles:
    """Return pictures (H, W, 3) uint8 of one line of dark text each as tiles of ``size`` px, cut from the line as training cuts
    its own. Raises DataError for a picture that is too small."""
    parts: list[InkTiles] = []
    lines: list[LineInPicture] = []
    ids: list[int | str] = []
    for picture, name in zip(pixels, names, strict=True):
        height, width = picture.shape[:2]
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        baseline = np.array([[0, 0.75 * height], [width, 0.75 * height]])
        grey = np.asarray(Image.fromarray(picture).convert("L"))
        strip = cut_line(grey, PageLine(Path(name), name, (width, height), corners, baseline), size)
        if strip is None:
            raise DataError(f"picture {name} has {width}×{height} px, too few for a line of text")
        columns = strip.ink.shape[1]
        num_tiles = -(-columns // size)
        image = np.zeros((size, num_tiles * size), dtype=np.uint8)
        image[:, :columns] = np.round(strip.ink * 255)
        tiles = image.reshape(size, num_tiles, size).transpose(1, 0, 2)
        empty = no_tiles(size, has_full_labels=False)
        parts.append(
            InkTiles(
                np.ascontiguousarray(tiles), np.zeros(num_tiles + 1, dtype=np.intp), empty.pixel, empty.tangent, empty.width,
                empty.offset, empty.key_points, has_full_labels=False,
            )
        )  # fmt: skip
        lines.append(LineInPicture(name, (height, width), columns))
        ids += [f"{name}_column_{number * size}" for number in range(num_tiles)]
    batch = join_tiles(parts).batch(ids)
    return PictureTiles(batch.images, batch.target, batch.image_ids, lines)


def found_in_lines(predictions: InkPredictions, batch: PictureTiles, key_point_threshold: float) -> list[FoundInk]:
    """Return what was found per line, its tiles put together again."""
    found, first = [], 0
    size = batch.images.shape[2]
    on_cpu = predictions.to(torch.device("cpu"))
    for line in batch.lines:
        tiles = slice(first, first + -(-line.columns // size))
        first = tiles.stop
        scale = line.size[1] / line.columns
        points, scores, kinds = _key_points(on_cpu.key_points, tiles, line, scale, key_point_threshold)
        skeleton = _joined(on_cpu.skeleton[tiles])[0, :, : line.columns]
        tangent = _joined(on_cpu.tangent[tiles])[:, :, : line.columns]
        found.append(FoundInk(line.name, line.size, scale, skeleton, tangent, points, scores, kinds))
    return found


def _joined(maps: Tensor) -> Tensor:
    """Return (C, S, N·S) from (N, C, S, S), tiles side by side."""
    return maps.permute(1, 2, 0, 3).flatten(2)


def _key_points(
    maps: Tensor | None, tiles: slice, line: LineInPicture, scale: float, threshold: float
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Return the local maxima above ``threshold``: positions in px of the picture, scores, kinds."""
    if maps is None:
        return torch.zeros(0, 2), torch.zeros(0), ()
    joined = _joined(maps[tiles])[:, :, : line.columns].float()
    highest = torch.nn.functional.max_pool2d(joined[None], 5, stride=1, padding=2)[0]
    kind, row, column = ((joined == highest) & (joined > threshold)).nonzero(as_tuple=True)
    scores, order = joined[kind, row, column].sort(descending=True, stable=True)
    points = torch.stack([column + 0.5, row + 0.5], dim=1)[order] * torch.tensor(
        [scale, line.size[0] / joined.shape[1]]
    )
    return points, scores, tuple(KEY_POINT_KINDS[index] for index in kind[order].tolist())
