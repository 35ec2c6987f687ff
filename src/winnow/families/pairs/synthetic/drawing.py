"""Draws a pair: a textured visible and a smooth, noisy infrared image of the same figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from winnow.families.pairs.synthetic.figures import Figure, draw_figures

HEIGHT, WIDTH = 128, 160
# Of the visible image's brightness, 1 being white: stripes about the local mean colour, and what a plain rectangle differs by.
_STRIPES, _PLAIN = 0.08, 0.16
# Of the infrared image's: how much warmer a person is than what is behind, how that changes along the stripes' angle, and how
# much of the stripes is seen.
_WARMTH, _SLOPE, _WARM_STRIPES, _COLD = 0.26, 0.10, 0.04, -0.16
_VISIBLE_NOISE, _INFRARED_NOISE = 0.012, 0.03


@dataclass(frozen=True)
class DrawnPair:
    """``visible`` (H, W, 3) and ``infrared`` (H, W), both uint8, with all figures, look-alikes too."""

    visible: np.ndarray
    infrared: np.ndarray
    figures: tuple[Figure, ...]

    @property
    def persons(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.kind == "person"]


def draw_pair(seed: int, split: int, index: int) -> DrawnPair:
    """Draw a pair as a function of the three."""
    rng = np.random.default_rng([seed, split, index])
    figures = tuple(draw_figures(HEIGHT, WIDTH, rng))
    visible, infrared = _textured(rng), _smooth(rng)
    for figure in figures:
        _draw_visible(visible, figure, rng)
        _draw_infrared(infrared, figure)
    visible += rng.normal(0, _VISIBLE_NOISE, visible.shape).astype(np.float32)
    infrared += rng.normal(0, _INFRARED_NOISE, infrared.shape).astype(np.float32)
    return DrawnPair(_bytes(visible), _bytes(infrared), figures)


def _textured(rng: np.random.Generator) -> np.ndarray:
    """Return (H, W, 3) float32: a colour that changes slowly, under grey patterns of all sizes."""
    colour = rng.uniform(0.35, 0.65, 3).astype(np.float32)
    slow = np.stack([_waves(48, 0.04, rng) for _ in range(3)], axis=-1)
    grey = _waves(24, 0.04, rng) + _waves(10, 0.02, rng) + _waves(4, 0.015, rng)
    return np.asarray(colour + slow + grey[..., None])


def _smooth(rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) float32: a temperature that changes slowly."""
    return np.asarray(rng.uniform(0.28, 0.42) + _waves(64, 0.05, rng) + _waves(32, 0.03, rng), dtype=np.float32)


def _waves(cell: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) float32 that varies by ``strength`` over ``cell`` px."""
    grid = rng.normal(0, strength, (HEIGHT // cell + 2, WIDTH // cell + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def _draw_visible(image: np.ndarray, figure: Figure, rng: np.random.Generator) -> None:
    under = image[figure.area]
    if figure.kind == "warm":
        under[:] = under.mean(axis=(0, 1)) + _PLAIN * rng.choice((-1, 1))
    elif figure.seen_in[0]:
        under[figure.mask] = (under[figure.mask].mean(axis=0) + _STRIPES * figure.pattern[..., None])[figure.mask]


def _draw_infrared(image: np.ndarray, figure: Figure) -> None:
    under = image[figure.area]
    if figure.kind == "mannequin":
        under[figure.mask] += _COLD
    elif figure.seen_in[1]:
        warm = under[figure.mask].mean() + _WARMTH + _SLOPE * figure.slope + _WARM_STRIPES * figure.pattern
        under[figure.mask] = warm[figure.mask]


def _bytes(image: np.ndarray) -> np.ndarray:
    return (image * 255).round().clip(0, 255).astype(np.uint8)
