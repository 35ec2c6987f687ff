"""Polylines of a map: many of different lengths in flat arrays, resampled, mirrored, and in their equivalent orders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from winnow.families.maps.frame import Array

CLASSES = ("divider", "ped_crossing", "boundary")
"""What a map's lines are, in MapTR's order."""
CLOSED_M = 1e-3
"""A line whose ends are nearer than this is a ring."""


@dataclass(frozen=True, eq=False)
class MapLines:
    """N lines in the map's frame, in metres, with all their points.

    Line i has the points ``vertices[starts[i]:starts[i + 1]]``, at least two: ``vertices`` (V, 2) float32, ``starts`` (N + 1,)
    int64; ``labels`` (N,) int64 are places in ``CLASSES``.
    """

    vertices: NDArray[np.float32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, lines: Sequence[Array], labels: Sequence[int]) -> Self:
        """Return lines, (P, 2) each, with their labels."""
        starts = np.cumsum([0, *(len(line) for line in lines)])
        vertices = np.concatenate(lines) if lines else np.zeros((0, 2))
        return cls(vertices.astype(np.float32), starts.astype(np.int64), np.asarray(labels, np.int64).reshape(-1))

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for start, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            yield self.vertices[start:end]

    @property
    def closed(self) -> NDArray[np.bool_]:
        """Tell for each line whether it is a ring, (N,), by its ends alone."""
        return np.array([is_closed(line) for line in self], dtype=bool)

    def of_class(self, label: int) -> list[NDArray[np.float32]]:
        return [line for line, own in zip(self, self.labels, strict=True) if own == label]

    def counts(self) -> list[int]:
        """Count the lines of each of ``CLASSES``."""
        return np.bincount(self.labels, minlength=len(CLASSES)).tolist()

    def mirrored(self) -> Self:
        """Return the lines with x negated."""
        return type(self)(self.vertices * np.array([-1, 1], np.float32), self.starts, self.labels)

    def resampled(self, num_points: int) -> NDArray[np.float32]:
        """Return (N, ``num_points``, 2): each line at equal steps along it."""
        lines = [resample(line, num_points) for line in self]
        return np.stack(lines).astype(np.float32) if lines else np.zeros((0, num_points, 2), np.float32)


def is_closed(line: Array | NDArray[np.float32]) -> bool:
    """Tell whether a (P, 2) line is a ring: it ends where it begins."""
    return len(line) > 3 and float(np.linalg.norm(line[0] - line[-1])) < CLOSED_M


def resample(line: Array | NDArray[np.float32], num_points: int) -> Array:
    """Return ``num_points`` points at equal steps along a (P, 2) line, its ends among them."""
    line = np.asarray(line, np.float64)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    steps = np.linspace(0.0, along[-1], num_points)
    return np.column_stack([np.interp(steps, along, line[:, axis]) for axis in (0, 1)])


def equivalent_orders(num_points: int, closed: bool) -> NDArray[np.int64]:
    """Return (K, ``num_points``) indices: each row reads the points of a resampled line in an order that means the same line.

    An open line may be reversed (K = 2). A ring, whose last point is its first, may begin anywhere and go either way round, and
    is closed again by its new first point (K = 2 (``num_points`` − 1)). The first row is the order as it is.
    """
    if not closed:
        forward = np.arange(num_points)
        return np.stack([forward, forward[::-1]])
    corners = num_points - 1
    begin, step = np.arange(corners)[:, None], np.arange(num_points)[None]
    return np.concatenate([(begin + step) % corners, (begin - step) % corners])
