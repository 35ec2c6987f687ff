"""Which locations of which feature level learn which box: FCOS's assignment, computed from boxes and map sizes
alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from winnow.families.detection.batch import DetectionBatch

CENTER_RADIUS = 1.5
"""A location is positive within this many strides of the box's centre (Tian et al. 2020, arXiv 2006.09214)."""


@dataclass(frozen=True)
class Grid:
    """The locations of all levels for images of one padded size, level by level, row by row.

    ``points`` (L, 2) xy and ``strides`` (L,) in pixels. A location lies at index × stride, as torchvision's anchors do
    and as stride-2 convolutions with padding 1 see it. ``shapes`` are (rows, columns) per level.
    """

    points: Tensor
    strides: Tensor
    shapes: tuple[tuple[int, int], ...]

    @property
    def level_sizes(self) -> list[int]:
        return [rows * columns for rows, columns in self.shapes]


@dataclass(frozen=True)
class Matches:
    """Candidate pairs of a location and a box, of which those with ``wins`` are the positive locations of the batch.

    All (P,): ``image`` and ``location`` (both int64; the location counts within the image), ``stride`` float32,
    ``label`` int64, ``wins`` bool; ``points`` (P, 2) xy and ``boxes`` (P, 4) in pixels. Those that lie outside the grid
    have any location and never win. The number of candidates depends on the number of boxes only, so that nothing has
    to wait for a GPU to know a shape. No two winners share image and location.
    """

    image: Tensor
    location: Tensor
    stride: Tensor
    points: Tensor
    label: Tensor
    boxes: Tensor
    wins: Tensor


def grid_shapes(image_shape: tuple[int, int], strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (rows, columns) per stride of a network that halves by ceil, for images of (height, width)."""
    return tuple((-(-image_shape[0] // stride), -(-image_shape[1] // stride)) for stride in strides)


def make_grid(image_shape: tuple[int, int], strides: Sequence[int], device: torch.device) -> Grid:
    shapes = grid_shapes(image_shape, strides)
    points, sizes = [], []
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        y = torch.arange(rows, device=device, dtype=torch.float32) * stride
        x = torch.arange(columns, device=device, dtype=torch.float32) * stride
        points.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2))
        sizes.append(torch.full((rows * columns,), float(stride), device=device))
    return Grid(torch.cat(points), torch.cat(sizes), shapes)


def match_locations(batch: DetectionBatch, strides: Sequence[int]) -> Matches:
    """Assign boxes to locations as FCOS does, by looking only at the few locations around each box's centre.

    Positive is a location that lies within ``CENTER_RADIUS`` strides of the centre, inside the box, and whose greatest
    distance to a side is in its level's range (4 to 8 strides; from 0 on the first level, without end on the last).
    Where boxes compete the smallest wins, among equals the first. Works on the device the targets are on.
    """
    boxes = torch.cat([target.boxes.reshape(-1, 4).float() for target in batch.targets])
    labels = torch.cat([target.labels for target in batch.targets])
    counts = torch.tensor([len(target.boxes) for target in batch.targets])
    images = torch.repeat_interleave(torch.arange(len(counts)), counts).to(boxes.device)
    levels, num_locations = _levels((batch.images.shape[2], batch.images.shape[3]), strides, boxes.device)
    points, locations, is_positive = _around_centers(boxes, levels)

    per_box = points.shape[1] * points.shape[2]
    owner = torch.arange(len(boxes), device=boxes.device).repeat_interleave(per_box)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    places = images[owner] * num_locations + locations.flatten()
    return Matches(
        image=images[owner],
        location=locations.flatten(),
        stride=levels.stride[None, :, None].expand(locations.shape).flatten(),
        points=points.flatten(0, 2),
        label=labels[owner],
        boxes=boxes[owner],
        wins=_smallest_wins(places, areas[owner], is_positive.flatten(), len(counts) * num_locations),
    )


class _Levels(NamedTuple):
    """Per level (V,): stride in pixels, rows, columns, the first location's index, and the open range of the reach."""

    stride: Tensor
    rows: Tensor
    columns: Tensor
    start: Tensor
    lower: Tensor
    upper: Tensor


def _levels(image_shape: tuple[int, int], strides: Sequence[int], device: torch.device) -> tuple[_Levels, int]:
    table, start = [], 0
    for level, (stride, (rows, columns)) in enumerate(zip(strides, grid_shapes(image_shape, strides), strict=True)):
        lower = 4 * stride if level > 0 else 0
        upper = 8 * stride if level < len(strides) - 1 else float("inf")
        table.append((stride, rows, columns, start, lower, upper))
        start += rows * columns
    return _Levels(*torch.tensor(table, dtype=torch.float32, device=device).unbind(dim=1)), start


def _around_centers(boxes: Tensor, levels: _Levels) -> tuple[Tensor, Tensor, Tensor]:
    """Return the 4 × 4 locations around the centre of each box on each level: points (N, V, 16, 2), index and positive
    (N, V, 16).
    """
    stride = levels.stride[:, None]
    centers = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None, None]
    steps = torch.arange(4, device=boxes.device, dtype=torch.float32)
    offsets = torch.cartesian_prod(steps, steps).flip(-1)
    cells = torch.floor(centers / stride[..., None] - CENTER_RADIUS) + offsets
    column, row = cells.unbind(dim=-1)
    points = cells * stride[..., None]
    sides = torch.cat([points - boxes[:, None, None, :2], boxes[:, None, None, 2:] - points], dim=-1)
    reach = sides.amax(dim=-1)
    in_grid = (column >= 0) & (column < levels.columns[:, None]) & (row >= 0) & (row < levels.rows[:, None])
    is_central = (points - centers).abs().amax(dim=-1) < CENTER_RADIUS * stride
    in_range = (reach > levels.lower[:, None]) & (reach < levels.upper[:, None])
    is_positive = in_grid & is_central & (sides.amin(dim=-1) > 0) & in_range
    index = levels.start[:, None] + row * levels.columns[:, None] + column
    return points, torch.where(in_grid, index, 0).long(), is_positive


def _smallest_wins(places: Tensor, areas: Tensor, is_positive: Tensor, num_places: int) -> Tensor:
    """Choose per place at most one winner: of the positive candidates the one with the smallest area, among equals the
    first.
    """
    areas = torch.where(is_positive, areas, torch.inf)
    smallest = areas.new_full((num_places,), torch.inf).scatter_reduce(0, places, areas, "amin")
    is_smallest = is_positive & (areas == smallest[places])
    order = torch.arange(len(places), device=places.device)
    order = torch.where(is_smallest, order, len(places))
    first = order.new_full((num_places,), len(places)).scatter_reduce(0, places, order, "amin")
    return is_smallest & (order == first[places])
