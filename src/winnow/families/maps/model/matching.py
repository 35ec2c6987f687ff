"""Which query finds which true line, and in which of the orders of its points that mean the same line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from winnow.families.maps.batch import MapTarget
from winnow.families.maps.lines import equivalent_orders
from winnow.families.set_prediction import assign


@dataclass(frozen=True)
class LineTargets:
    """The true lines of B samples, padded to the largest number N.

    ``labels`` (B, N) int64; ``counts`` how many of the N are real. ``orders`` (B, M, P, 2) float32 are their points, as parts of
    the region, in each order that means the same line: order m of sample b is of line ``owners[b, m]``; one of padding is of line
    N, which there is not.
    """

    labels: Tensor
    counts: tuple[int, ...]
    orders: Tensor
    owners: Tensor

    @classmethod
    def of(cls, targets: Sequence[MapTarget], corner: Tensor, sides: Tensor) -> LineTargets:
        """Return those of a batch; the region has its least x and y at ``corner`` (2,) and ``sides`` (2,) in metres."""
        counts = tuple(len(target.labels) for target in targets)
        closed = torch.cat([target.closed for target in targets]).cpu().numpy()
        num_points = targets[0].points.shape[1]
        first, chosen = 0, []
        for count in counts:
            chosen.append(_orders_of(closed[first : first + count], num_points))
            first += count
        most = max(len(lines) for lines, _ in chosen)
        lines = np.zeros((len(counts), most), np.int64)
        owners = np.full((len(counts), most), max(counts), np.int64)
        order = np.zeros((len(counts), most, num_points), np.int64)
        for row, (own, indices) in enumerate(chosen):
            lines[row, : len(own)] = owners[row, : len(own)] = own
            order[row, : len(own)] = indices
        device = corner.device
        on_device = [torch.from_numpy(array).to(device, non_blocking=True) for array in (lines, owners, order)]
        parts = pad_sequence([(target.points - corner) / sides for target in targets], batch_first=True)
        if not most or not max(counts):
            parts = torch.zeros(len(counts), 1, num_points, 2, device=device)
        sample = torch.arange(len(counts), device=device)[:, None, None]
        orders = parts[sample, on_device[0][..., None], on_device[2]]
        return cls(pad_sequence([target.labels for target in targets], batch_first=True), counts, orders, on_device[1])


@lru_cache(maxsize=16)
def _equivalent(num_points: int, closed: bool) -> np.ndarray:
    return equivalent_orders(num_points, closed)


def _orders_of(closed: np.ndarray, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return of all orders of a sample's lines, open or ``closed``: to which line each belongs (M,), and its points (M, P)."""
    orders = [_equivalent(num_points, bool(is_ring)) for is_ring in closed]
    if not orders:
        return np.zeros(0, np.int64), np.zeros((0, num_points), np.int64)
    return np.repeat(np.arange(len(orders)), [len(own) for own in orders]), np.concatenate(orders)


@dataclass(frozen=True)
class Matches:
    """M pairs in each of L decoder layers: pair m of layer l joins query ``queries[l, m]`` of sample ``samples[m]`` to its true
    line ``lines[l, m]``, whose points are taken in the order ``orders[l, m]``. M is Σ min(queries, lines) over the samples."""

    samples: Tensor
    queries: Tensor
    lines: Tensor
    orders: Tensor


@dataclass(frozen=True)
class MatchingCosts:
    """Weights of both costs, and the focal shape of the first."""

    class_cost: float
    points_cost: float
    focal_alpha: float
    focal_gamma: float


@torch.no_grad()
def match(logits: Tensor, points: Tensor, targets: LineTargets, costs: MatchingCosts) -> Matches:
    """Return the cheapest one-to-one assignment per layer and sample.

    ``logits`` (L, B, I, C), ``points`` (L, B, I, P, 2) as parts of the region, float32. The distance of a query to a line is the
    sum of |Δx| + |Δy| over the points, in the order that makes it least. One table of distances, one copy from the device.
    Non-finite costs are matched last: that the loss becomes non-finite is the criterion's concern.
    """
    num_layers = len(logits)
    if not sum(targets.counts):
        empty = torch.zeros(num_layers, 0, dtype=torch.int64, device=logits.device)
        return Matches(empty[0], empty, empty, empty)
    table = order_distances(points, targets)
    distances = nearest_order(table, targets)
    cost = costs.points_cost * distances + costs.class_cost * _class_cost(logits, targets, costs)
    where, query, line = assign(cost, targets.counts)
    layers = torch.arange(num_layers, device=logits.device)[:, None]
    of_other = targets.owners[where][None] != line[..., None]
    order = table[layers, where, query].masked_fill(of_other, torch.inf).argmin(dim=-1)
    return Matches(where, query, line, order)


def order_distances(points: Tensor, targets: LineTargets) -> Tensor:
    """Return the summed L1 distances (L, B, I, M) of predicted lines to true ones in each of their orders."""
    flat = points.flatten(-2)
    return torch.cdist(flat, targets.orders.flatten(-2).expand(len(flat), -1, -1, -1), p=1)


def nearest_order(table: Tensor, targets: LineTargets) -> Tensor:
    """Return (L, B, I, N): of the distances (L, B, I, M) the least over the orders of each line."""
    owners = targets.owners[None, :, None].expand_as(table)
    least = table.new_full((*table.shape[:-1], targets.labels.shape[1] + 1), torch.inf)
    return least.scatter_reduce(-1, owners, table, "amin")[..., :-1]


def _class_cost(logits: Tensor, targets: LineTargets, costs: MatchingCosts) -> Tensor:
    """Return (L, B, I, N), what the focal loss would rise by if a query were the line's class and not nothing."""
    probability = logits.sigmoid()
    as_positive = costs.focal_alpha * (1 - probability) ** costs.focal_gamma * F.softplus(-logits)
    as_negative = (1 - costs.focal_alpha) * probability**costs.focal_gamma * F.softplus(logits)
    index = targets.labels[None, :, None].expand(*logits.shape[:3], -1)
    return (as_positive - as_negative).gather(-1, index)
