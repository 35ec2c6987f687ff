"""Tiles of ink in little memory: 8-bit images, and labels for the pixels of their skeletons only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from winnow.data.shared_memory import new_tensor
from winnow.families.ink.batch import KEY_POINT_KINDS, InkBatch, InkTarget

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class InkTiles:
    """N square tiles, ``images`` (N, size, size) uint8 with 255 on ink, and M labelled pixels, ordered by tile: those of tile i
    are ``starts[i]:starts[i + 1]``, ``starts`` being (N + 1,).

    ``pixel`` (M,) is row × size + column in the tile; ``tangent`` (M, 2), ``width`` (M,), ``offset`` (M, 2) float32 and
    ``key_points`` (M, 3) bool as in ``InkTarget``.
    """

    images: NDArray[np.uint8]
    starts: Indices
    pixel: Indices
    tangent: NDArray[np.float32]
    width: NDArray[np.float32]
    offset: NDArray[np.float32]
    key_points: NDArray[np.bool_]
    has_full_labels: bool

    def __len__(self) -> int:
        return len(self.images)

    def with_images(self, images: NDArray[np.uint8]) -> InkTiles:
        return replace(self, images=images)

    def take(self, chosen: Sequence[int]) -> InkTiles:
        """Return the tiles with these indices, in this order."""
        spans = [np.arange(self.starts[index], self.starts[index + 1]) for index in chosen]
        rows = np.concatenate([np.arange(0), *spans])
        starts = np.cumsum([0, *(len(span) for span in spans)])
        images = self.images[np.asarray(chosen, dtype=np.intp)]
        labels = {name: getattr(self, name)[rows] for name in _LABELS}
        return InkTiles(images, starts, has_full_labels=self.has_full_labels, **labels)

    def batch(self, image_ids: Sequence[int | str]) -> InkBatch:
        """Return all tiles as a batch; in a worker process right in shared memory."""
        count, height, width = self.images.shape
        images = new_tensor((count, 1, height, width), torch.float32)
        np.divide(self.images[:, None], np.float32(255), out=images.numpy())
        tile = np.repeat(np.arange(count), np.diff(self.starts))
        target = InkTarget(
            skeleton=self._spread(tile, np.ones((len(tile), 1), dtype=np.float32)),
            tangent=self._spread(tile, self.tangent),
            width=self._spread(tile, self.width[:, None]),
            offset=self._spread(tile, self.offset),
            key_points=self._spread(tile, self.key_points),
            has_full_labels=torch.full((count,), self.has_full_labels),
        )
        return InkBatch(images, target, list(image_ids))

    def _spread(self, tile: Indices, values: NDArray[Any]) -> Tensor:
        """Return (N, channels, size, size) float32 with ``values`` (M, channels) at their pixels and 0 elsewhere."""
        count, height, width = self.images.shape
        spread = new_tensor((count, values.shape[1], height, width), torch.float32)
        flat = spread.numpy().reshape(count, values.shape[1], height * width)
        flat.fill(0)
        for channel in range(values.shape[1]):
            flat[tile, channel, self.pixel] = values[:, channel]
        return spread


_LABELS = ("pixel", "tangent", "width", "offset", "key_points")


def join_tiles(parts: Sequence[InkTiles]) -> InkTiles:
    """Join all tiles of ``parts``, at least one, in order."""
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    return InkTiles(
        images=np.concatenate([part.images for part in parts]),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.intp),
        has_full_labels=parts[0].has_full_labels,
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _LABELS},
    )


def no_tiles(size: int, has_full_labels: bool) -> InkTiles:
    return InkTiles(
        images=np.zeros((0, size, size), dtype=np.uint8),
        starts=np.zeros(1, dtype=np.intp),
        pixel=np.zeros(0, dtype=np.intp),
        tangent=np.zeros((0, 2), dtype=np.float32),
        width=np.zeros(0, dtype=np.float32),
        offset=np.zeros((0, 2), dtype=np.float32),
        key_points=np.zeros((0, len(KEY_POINT_KINDS)), dtype=bool),
        has_full_labels=has_full_labels,
    )
