"""What all pictures have in common: their colours and their font."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from PIL import ImageFont

Colour = tuple[int, int, int]

BACKGROUND: Colour = (24, 24, 27)
TEXT: Colour = (220, 222, 226)


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return letters of ``size`` px, in matplotlib's font: Pillow's own has no ≥ and few of the alphabets that names
    come in.
    """
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)
