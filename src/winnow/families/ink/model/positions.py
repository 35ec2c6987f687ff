"""Resizes learnt positions to other grids of tokens, on a GPU also where training must be deterministic."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resized(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``positions`` (1, C, h, w) at ``size`` (height, width), by bicubic interpolation.

    torch has no deterministic CUDA kernel for the gradient of that interpolation. With ``training.deterministic=true`` it is
    therefore computed there as two matrix products, which give the same values up to rounding.
    """
    if positions.is_cuda and torch.are_deterministic_algorithms_enabled():
        return resized_by_products(positions, size)
    return F.interpolate(positions, size=size, mode="bicubic", align_corners=False)


def resized_by_products(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Return what ``resized`` returns: bicubic interpolation is linear, and separable into rows and columns."""
    rows, columns = (
        _weights(before, after).to(positions) for before, after in zip(positions.shape[2:], size, strict=True)
    )
    with torch.autocast(positions.device.type, enabled=False):
        return rows @ positions @ columns.T


def _weights(before: int, after: int) -> Tensor:
    """Return the matrix [after, before] that resizes a line of ``before`` values, computed on the CPU."""
    lines = torch.eye(before).reshape(1, before, before, 1)
    return F.interpolate(lines, size=(after, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
