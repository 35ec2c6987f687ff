"""The keys of detection's data sets, by ``data`` choice."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

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


class ChosenSettings(DetectionSettings):
    """The keys of ``conf/data/annotated_images.yaml``: ``classes`` to learn (None: all), by label, ``ignore_categories`` whose
    objects are ignored; what files come to is kept under ``cache`` (None: found anew at each start)."""

    classes: list[str] | None = None
    ignore_categories: list[str] = Field(default_factory=list)
    cache: str | None = None

    @property
    def cache_folder(self) -> Path | None:
        return None if self.cache is None else Path(self.cache)

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
    root: str


class PartPaths(Settings):
    """A folder of images and the COCO JSON that belongs to it; without ``annotations`` the part is left out."""

    images: str | None
    annotations: str | None


class CocoNode(HeldOutSettings):
    """The keys of ``data=coco``: either ``root`` or the paths of each part; ``val`` may be null."""

    name: str
    root: str | None = None
    train: PartPaths
    val: PartPaths | None


class VocPart(Settings):
    """The folders of a split's images and of its XML files; without ``annotations`` they lie beside the images."""

    images: str | None
    annotations: str | None


class VocNode(HeldOutSettings):
    """The keys of ``data=voc``: either ``root`` or the folders of each split; conversions are kept under ``cache``."""

    name: str
    root: str | None
    train: VocPart
    val: VocPart | None
    cache: str


class YoloNode(HeldOutSettings):
    """The keys of ``data=yolo``; conversions are kept under ``cache``."""

    name: str
    root: str
    cache: str


class Bdd100kNode(ChosenSettings):
    """The keys of ``data=bdd100k``; conversions are kept under ``cache``."""

    name: str
    root: str
    cache: str
