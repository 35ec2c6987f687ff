"""The keys of detection's data sets, by ``data`` choice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from winnow.data.pixel_rule import MAX_PIXELS, Exif, PixelRule
from winnow.families.detection.formats.digits import DigitsSettings
from winnow.families.detection.rules.label_rules import Convention, LabelSettings, Reading
from winnow.families.detection.transforms import AugmentationSettings
from winnow.settings import Settings

Place = Annotated[str, AfterValidator(os.path.expanduser)]
"""A file or folder, ``~`` for the home folder."""
GreyLevels = Annotated[tuple[int, int], Field(strict=False)]


class DetectionSettings(Settings):
    """What every detection data set has in common: the keys of ``conf/data/detection.yaml``."""

    image_size: int = Field(ge=16)
    resize: Literal["pad", "square"]
    augmentation: AugmentationSettings
    max_bad_images: int = Field(ge=0)
    wait_for_files_seconds: float = Field(ge=0, strict=False)
    exif: Exif = "auto"
    depth: Literal["upper8", "percentile"] | GreyLevels = "upper8"
    max_pixels: int | None = Field(default=MAX_PIXELS, gt=0)

    @model_validator(mode="after")
    def _levels_rise(self) -> DetectionSettings:
        if isinstance(self.depth, tuple) and not 0 <= self.depth[0] < self.depth[1] <= 65535:
            raise ValueError(f"depth={list(self.depth)} must be [low, high] with 0 ≤ low < high ≤ 65535")
        return self

    @property
    def pixel_rule(self) -> PixelRule:
        """Return how pixels are taken."""
        mends_ends = isinstance(self, LabelSettings) and "jpeg_ends" in self.mend
        return PixelRule(self.exif, self.depth, self.max_pixels, mends_ends)


class FileSettings(DetectionSettings, LabelSettings):
    """What detection data sets from label files have in common: the keys of ``conf/data/labels.yaml`` besides."""

    cache: Place

    def reading(self, native: Convention) -> Reading:
        """Return how their COCO files are read, whose boxes meant ``native`` as they were written."""
        labels = LabelSettings(**{name: getattr(self, name) for name in LabelSettings.model_fields})
        return Reading(labels=labels, native=native, exif=self.exif, cache=Path(self.cache))


class DigitsNode(DetectionSettings, DigitsSettings):
    """The keys of ``data=digits``; ``root`` is where the set is kept."""

    name: str
    root: Place


class PartPaths(Settings):
    """A folder of images and the COCO JSON that belongs to it; without ``annotations`` the part is left out."""

    images: Place | None
    annotations: Place | None


class CocoNode(FileSettings):
    """The keys of ``data=coco``: either ``root`` or the paths of each part; ``val`` may be null. What the headers of the pictures
    say is kept under ``cache``."""

    name: str
    root: Place | None = None
    train: PartPaths
    val: PartPaths | None
    cache: Place = ".cache/coco"


class VocPart(Settings):
    """The folders of a split's images and of its XML files; without ``annotations`` they lie beside the images."""

    images: Place | None
    annotations: Place | None


class VocNode(FileSettings):
    """The keys of ``data=voc``: either ``root`` or the folders of each split; conversions are kept under ``cache``."""

    name: str
    root: Place | None
    train: VocPart
    val: VocPart | None


class YoloNode(FileSettings):
    """The keys of ``data=yolo``; conversions are kept under ``cache``."""

    name: str
    root: Place


class Bdd100kNode(FileSettings):
    """The keys of ``data=bdd100k``; conversions are kept under ``cache``."""

    name: str
    root: Place
