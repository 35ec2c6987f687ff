"""The keys of detection's data sets, by ``data`` choice."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from winnow.families.detection.formats.digits import DigitsSettings
from winnow.families.detection.transforms import AugmentationSettings
from winnow.settings import Settings


class DetectionSettings(Settings):
    """What every detection data set has in common: the keys of ``conf/data/detection.yaml``."""

    image_size: int = Field(ge=16)
    resize: Literal["pad", "square"]
    augmentation: AugmentationSettings
    max_bad_images: int = Field(ge=0)
    wait_for_files_seconds: float = Field(ge=0, strict=False)


class DigitsNode(DetectionSettings, DigitsSettings):
    """The keys of ``data=digits``; ``root`` is where the set is kept."""

    name: str
    root: str


class PartPaths(Settings):
    """A folder of images and the COCO JSON that belongs to it; without ``annotations`` the part is left out."""

    images: str | None
    annotations: str | None


class CocoNode(DetectionSettings):
    """The keys of ``data=coco``; ``val`` may be null."""

    name: str
    train: PartPaths
    val: PartPaths | None


class Bdd100kNode(DetectionSettings):
    """The keys of ``data=bdd100k``; conversions are kept under ``cache``."""

    name: str
    root: str
    cache: str
