"""How the pixels of a data set's image files are taken: by which EXIF orientations they are turned, which bits are kept, what is
too large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Exif = Literal["auto", "always", "never", "by_size"]
Depth = Literal["upper8", "percentile"] | tuple[int, int]

MAX_PIXELS = 166_666_666
"""The most that an image may have unless told otherwise: 500 MB as RGB. A file of a few kB can promise terabytes."""


@dataclass(frozen=True)
class PixelRule:
    """``exif``: ``always`` as viewers show it, ``never``, ``by_size`` where only the turned picture has the annotated size, and
    ``auto``, which is ``by_size`` and turns orientations 2 to 4, that keep the size, too.

    ``depth`` says what becomes of 16 bits: their upper 8, grey levels (low, high) as 0 to 255, or the range of each picture
    without its darkest and brightest half percent. ``max_pixels`` may be None. ``mends_ends``: a JPEG that only lacks its end is
    read.
    """

    exif: Exif = "by_size"
    depth: Depth = "upper8"
    max_pixels: int | None = MAX_PIXELS
    mends_ends: bool = False


PLAIN = PixelRule()
"""What holds for files that a family wrote itself."""
