"""Colours and font that all pictures share."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from PIL import Image, ImageFont

Colour = tuple[int, int, int]

BACKGROUND: Colour = (24, 24, 27)
TEXT: Colour = (220, 222, 226)


def jpeg(picture: Image.Image) -> bytes:
    """Return ``picture`` as a page holds it."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=82)
    return content.getvalue()


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return matplotlib's font at ``size`` px: Pillow's own has no ≥ and few of the alphabets that names come in."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)
