"""The keys of detection's data sets, by ``data`` choice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from winnow.data.pixel_rule import MAX_PIXELS, Exif, PixelRule
from winnow.families.detection.formats.digits import DigitsSettings
from winnow.families.detection.rules.label_rules import Convention, LabelSettings, Reading
from winnow.families.detection.transforms import AugmentationSettings
from winnow.settings import MAX_IMAGE_SIZE, Settings

Place = Annotated[str, AfterValidator(os.path.expanduser)]
"""A file or folder, ``~`` for the home folder."""
GreyLevels = Annotated[tuple[int, int], Field(strict=False)]


class DetectionSettings(Settings):
    """What every detection data set has in common: the keys of ``conf/data/detection.yaml``."""

    image_size: int = Field(ge=16, le=MAX_IMAGE_SIZE)
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


class ChosenSettings(DetectionSettings, LabelSettings):
    """The keys of ``conf/data/annotated_images.yaml``, those of ``labels.yaml`` among them: ``classes`` to learn (None: all), by
    label, ``ignore_categories`` whose objects are ignored; what files come to is kept under ``cache`` (None: found anew at each
    start)."""

    classes: list[str] | None = None
    ignore_categories: list[str] = Field(default_factory=list)
    cache: Place | None = None

    @property
    def cache_folder(self) -> Path | None:
        return None if self.cache is None else Path(self.cache)

    def reading(self, native: Convention) -> Reading:
        """Return how their COCO files are read, whose boxes meant ``native`` as they were written."""
        labels = LabelSettings(**{name: getattr(self, name) for name in LabelSettings.model_fields})
        return Reading(labels=labels, native=native, exif=self.exif, cache=self.cache_folder)

    @field_validator("classes", "ignore_categories")
    @classmethod
    def _names_differ(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and len(set(names)) != len(names):
            raise ValueError("names must differ")
        return names

    @field_validator("classes")
    @classmethod
    def _are_some(cls, names: list[str] | None) -> list[str] | None:
        if names == []:
            raise ValueError("name a class, or null for all")
        return names


class HeldOutSettings(ChosenSettings):
    """Which part of one set is held out for validation: ``val_part`` of it, or fold ``fold`` (from 0) of ``folds``."""

    val_part: float | None = Field(default=None, gt=0, lt=1)
    folds: int | None = Field(default=None, ge=2)
    fold: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _is_one_way(self) -> HeldOutSettings:
        if self.val_part is not None and self.folds is not None:
            raise ValueError(f"val_part={self.val_part} and folds={self.folds} both hold a part out; give one of them")
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold={self.fold} is none of folds={self.folds}: folds count from 0")
        return self

    @property
    def holds_out(self) -> bool:
        return self.val_part is not None or self.folds is not None

    @property
    def held_out_words(self) -> str:
        """Return the keys that say what is held out, as on a command line."""
        return (
            f"data.val_part={self.val_part:g}"
            if self.val_part is not None
            else f"data.folds={self.folds} data.fold={self.fold}"
        )


class DigitsNode(DetectionSettings, DigitsSettings):
    """The keys of ``data=digits``; ``root`` is where the set is kept."""

    name: str
    root: Place


class PartPaths(Settings):
    """A folder of images and the COCO JSON that belongs to it; without ``annotations`` the part is left out."""

    images: Place | None
    annotations: Place | None


class CocoNode(HeldOutSettings):
    """The keys of ``data=coco``: either ``root`` or the paths of each part; ``val`` may be null."""

    name: str
    root: Place | None = None
    train: PartPaths
    val: PartPaths | None
    cache: Place | None = ".cache/coco"


class VocPart(Settings):
    """The folders of a split's images and of its XML files; without ``annotations`` they lie beside the images."""

    images: Place | None
    annotations: Place | None


class VocNode(HeldOutSettings):
    """The keys of ``data=voc``: either ``root`` or the folders of each split; conversions are kept under ``cache``."""

    name: str
    root: Place | None
    train: VocPart
    val: VocPart | None
    cache: Place


class YoloNode(HeldOutSettings):
    """The keys of ``data=yolo``; conversions are kept under ``cache``."""

    name: str
    root: Place
    cache: Place


class Bdd100kNode(ChosenSettings):
    """The keys of ``data=bdd100k``; conversions are kept under ``cache``."""

    name: str
    root: Place
    cache: Place
