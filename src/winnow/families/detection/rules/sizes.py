"""Sizes that a label file gives of its images, held against the images: missing, zero and exchanged ones come from there."""

from __future__ import annotations

from winnow.data.picture_facts import PictureFacts
from winnow.data.pixel_rule import Exif

Size = tuple[int, int]


def size_of(annotated: Size, picture: PictureFacts, exif: Exif) -> Size:
    """Return (width, height) that an image has for training, whose file says ``annotated``, (0, 0) for nothing. It is the
    annotated one unless that is missing or the transpose of what the image can be; another size is left to whoever reads it."""
    stored, shown = (picture.width, picture.height), picture.shown
    if 0 in stored:
        return annotated
    possible = [stored] if exif == "never" else [shown] if exif == "always" else [stored, shown]
    if 0 in annotated:
        return possible[-1]
    if annotated in possible or annotated[::-1] not in possible:
        return annotated
    return annotated[::-1]
