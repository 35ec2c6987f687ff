"""A map task's predictions for one sample, and how they are taken from a network's scores."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class MapPredictions:
    """``points`` (K, P, 2) float32 in metres in the map's frame, ``scores`` (K,) in descending order, ``labels`` (K,) int64."""

    points: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"points, scores and labels must have one entry per line, got {lengths}")

    def to(self, device: torch.device) -> Self:
        return type(self)(self.points.to(device), self.scores.to(device), self.labels.to(device))


def top_lines(points: Tensor, scores: Tensor, most: int) -> MapPredictions:
    """Return the ``most`` highest of all Q × C pairs of a query and a class, whatever their scores: one query may give several.

    ``points`` (Q, P, 2), ``scores`` (Q, C).
    """
    flat = scores.flatten().float()
    order = flat.argsort(descending=True, stable=True)[:most]
    num_classes = max(1, scores.shape[1])
    return MapPredictions(points[order // num_classes].float(), flat[order], order % num_classes)
