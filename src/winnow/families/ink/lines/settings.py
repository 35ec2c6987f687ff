"""The settings of ``data=ink_lines``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from winnow.settings import MAX_IMAGE_SIZE, Settings


class PagesSettings(Settings):
    """Pages, in the folder ``images``, and what is written on them: ``annotations`` is a COCO file, an ALTO file or a folder of
    those."""

    images: str
    annotations: str


class InkLinesSettings(Settings):
    """The keys of ``conf/data/ink_lines.yaml``."""

    name: str
    train: PagesSettings
    val: PagesSettings | None
    val_part: float = Field(gt=0, lt=1, strict=False)
    split_by: Literal["page", "line"]
    image_size: int = Field(ge=32, le=MAX_IMAGE_SIZE)
    shift: int = Field(ge=0)
    cache: str
