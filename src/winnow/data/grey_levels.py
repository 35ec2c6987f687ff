"""What becomes of pictures with 16 bits: 8 of them, by one of three rules, and how many grey levels that leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.data.pixel_rule import Depth

_TAILS = (0.5, 99.5)
FEW = 64
"""Grey levels below which a picture has lost what matters, where it had more."""


@dataclass(frozen=True)
class LevelsLeft:
    """The range of a picture's values, how many different ones it has, and how many are left of them with 8 bits."""

    lowest: int
    highest: int
    before: int
    after: int

    @property
    def are_few(self) -> bool:
        return self.after < min(FEW, self.before)


def to_8_bits(values: np.ndarray, depth: Depth) -> np.ndarray:
    """Return (H, W) uint8 of ``values`` (H, W) from 0 to 65535."""
    if depth == "upper8":
        return (values.astype(np.uint32) >> 8).astype(np.uint8)
    low, high = np.percentile(values, _TAILS) if depth == "percentile" else depth
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1))
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def levels_left(values: np.ndarray, depth: Depth) -> LevelsLeft:
    """Return what of ``values`` (H, W) from 0 to 65535 is left by ``depth``."""
    left = np.unique(to_8_bits(values, depth))
    return LevelsLeft(int(values.min()), int(values.max()), len(np.unique(values)), len(left))
