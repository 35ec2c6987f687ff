"""Figures of drawn pairs: which there are, what shape and stripes they have, where they stand, and who shows them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["person", "warm", "mannequin"]

MOST_PERSONS = 5
MOST_LOOK_ALIKES = 2
HEIGHTS = (26, 48)
SEEN_IN_BOTH, SEEN_IN_ONE = 0.70, 0.15
_PLACING_TRIES = 60


@dataclass(frozen=True)
class Figure:
    """A person, or what one of the images can't tell from one: a ``warm`` thing looks like a person in infrared and is a plain
    rectangle in the visible image; a ``mannequin`` looks like one in the visible image and is cold in infrared.

    ``box`` is x1, y1, x2, y2 in px, ``mask`` (height, width) bool fills it exactly. ``seen_in`` says which of visible and
    infrared show the figure; a look-alike is in both. ``pattern`` (height, width) in −1…1 are its stripes, ``slope``, as large,
    rises along their angle.
    """

    kind: Kind
    box: tuple[int, int, int, int]
    seen_in: tuple[bool, bool]
    mask: np.ndarray
    pattern: np.ndarray
    slope: np.ndarray

    @property
    def area(self) -> tuple[slice, slice]:
        """Return the rows and columns of its box."""
        left, top, right, bottom = self.box
        return slice(top, bottom), slice(left, right)

    def looks_like_a_person_in(self, modality: int) -> bool:
        """Tell whether visible (0) or infrared (1) alone shows the figure, and shows nothing that tells it from a person."""
        if self.kind == "person":
            return self.seen_in[modality]
        return self.kind == ("mannequin", "warm")[modality]


def draw_figures(height: int, width: int, rng: np.random.Generator) -> list[Figure]:
    """Draw the figures of an image of this size; their boxes do not overlap, and where there is no room for one it is left
    out. Kinds are shuffled before, so that none is left out more often."""
    kinds: list[Kind] = ["person"] * int(rng.integers(1, MOST_PERSONS + 1))
    kinds += ["warm"] * int(rng.integers(0, MOST_LOOK_ALIKES + 1))
    kinds += ["mannequin"] * int(rng.integers(0, MOST_LOOK_ALIKES + 1))
    figures: list[Figure] = []
    for index in rng.permutation(len(kinds)).tolist():
        tall = int(rng.integers(HEIGHTS[0], HEIGHTS[1] + 1))
        seen_in = _seen_in(rng.random()) if kinds[index] == "person" else (True, True)
        wide = round(tall / 2)
        mask, (pattern, slope) = _shape(tall, wide, rng), _stripes(tall, wide, rng)
        box = _place(tall, wide, height, width, [figure.box for figure in figures], rng)
        if box is not None:
            figures.append(Figure(kinds[index], box, seen_in, mask, pattern, slope))
    return figures


def _seen_in(chance: float) -> tuple[bool, bool]:
    if chance < SEEN_IN_BOTH:
        return True, True
    return (True, False) if chance < SEEN_IN_BOTH + SEEN_IN_ONE else (False, True)


def _shape(tall: int, wide: int, rng: np.random.Generator) -> np.ndarray:
    """Return the mask of somebody with a head, shoulders and two legs, (tall, wide) bool, that touches all four sides."""
    head, waist, hips, feet = rng.uniform((0.35, 0.45, 0.5, 0.5), (0.6, 0.95, 0.95, 1.0)).tolist()
    crotch, gap = rng.uniform(0.52, 0.75), rng.uniform(0.12, 0.3)
    down = (np.arange(tall) + 0.5) / tall
    across = np.abs((np.arange(wide) + 0.5) / wide * 2 - 1)
    # Half of the width, 1 being that of the box, from the crown to the feet.
    half = np.interp(down, (0, 0.06, 0.16, 0.21, 0.25, 0.32, 0.45, 0.55, 1),
                     (0.6 * head, head, head, 0.2, 1, 1, waist, hips, feet))  # fmt: skip
    mask = across <= np.maximum(half, 1 / wide)[:, None]
    mask &= (down < crotch)[:, None] | (across > gap)
    return np.asarray(mask)


def _stripes(tall: int, wide: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    angle, period, phase = rng.uniform(0, math.pi), rng.uniform(4.5, 9), rng.uniform(0, math.tau)
    rows, columns = np.arange(tall)[:, None] - (tall - 1) / 2, np.arange(wide)[None] - (wide - 1) / 2
    along = rows * math.sin(angle) + columns * math.cos(angle)
    pattern = np.clip(2 * np.sin(math.tau * along / period + phase), -1, 1)
    return pattern.astype(np.float32), (along / np.abs(along).max()).astype(np.float32)


def _place(
    tall: int, wide: int, height: int, width: int, taken: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    tops, lefts = rng.integers(0, (height - tall + 1, width - wide + 1), (_PLACING_TRIES, 2)).T.tolist()
    for top, left in zip(tops, lefts, strict=True):
        right, bottom = left + wide, top + tall
        if all(right <= x1 or x2 <= left or bottom <= y1 or y2 <= top for x1, y1, x2, y2 in taken):
            return left, top, right, bottom
    return None
