"""Finds the COCO files and image folders that keys of ``data=coco``, ``voc`` and ``yolo`` name, converted where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from winnow.errors import ConfigError
from winnow.families.detection.formats.coco_folder import coco_of_root
from winnow.families.detection.formats.conversion import LabelledSet, convert_once
from winnow.families.detection.formats.voc_folder import voc_of_parts, voc_of_root
from winnow.families.detection.formats.yolo import YoloRule, yolo_of_root
from winnow.families.detection.rules.label_rules import YOLO_BOXES, Convention
from winnow.families.detection.settings import CocoNode, VocNode, YoloNode

Anything = TypeVar("Anything")


def find_coco(settings: CocoNode, val_split: str = "val") -> dict[str, tuple[Path, Path]]:
    """Find (annotation file, folder of its images) of train and val; no val where ``data.val`` is null or has no annotations.
    What is found as val may be another ``val_split`` of the same root.

    Raises ConfigError unless the data is named in one way, and whole.
    """
    parts = {"train": settings.train, "val": settings.val}
    is_named = any(value is not None for part in parts.values() if part for value in (part.images, part.annotations))
    if settings.root is not None:
        if is_named:
            raise ConfigError(
                "name the data in one way: data.root, or images and annotations of data.train and data.val"
            )
        splits = coco_of_root(Path(settings.root))
        return _with_val(splits, val_split, settings.val is not None)
    found: dict[str, tuple[Path, Path]] = {}
    for split, part in parts.items():
        if part is None or (split == "val" and part.annotations is None and (part.images or settings.holds_out)):
            continue
        for key, value in (("images", part.images), ("annotations", part.annotations)):
            if value is None:
                other = (
                    "data.root"
                    if split == "train"
                    else "data.val=null to train without evaluation, or data.val_part=0.15"
                )
                raise ConfigError(
                    f"data.{split}.{key} is null; name the {'folder' if key == 'images' else 'file'}, or give {other}"
                )
        found[split] = (Path(str(part.annotations)), Path(str(part.images)))
    return _with_val(found, val_split)


def find_voc(settings: VocNode, val_split: str = "val") -> dict[str, tuple[Path, Path]]:
    """Find (annotation file, folder of its images) of train and val, converted first where they are not. Raises ConfigError
    unless the data is named in one way."""
    named = {}
    for split, part in (("train", settings.train), ("val", settings.val)):
        if part is None or part.images is part.annotations is None:
            continue
        if part.images is None:
            raise ConfigError(f"data.{split}.images is null; name the folder")
        named[split] = (Path(part.images), Path(part.annotations or part.images))
    if (settings.root is None) == ("train" not in named):
        raise ConfigError("name the data in one way: data.root, or data.train.images and data.train.annotations")
    limit = settings.max_pixels
    found = voc_of_parts(named, limit) if settings.root is None else voc_of_root(Path(settings.root), limit)
    return convert_once(_asked_for(found, val_split, settings.val is not None), Path(settings.cache), "voc")


def find_yolo(settings: YoloNode, val_split: str = "val") -> dict[str, tuple[Path, Path]]:
    """Find (annotation file, folder of its images) of train and val, converted first where they are not."""
    found = _asked_for(yolo_of_root(Path(settings.root), yolo_rule(settings)), val_split)
    return convert_once(found, Path(settings.cache), "yolo")


def yolo_rule(settings: YoloNode) -> YoloRule:
    """Return how YOLO's numbers are read."""
    return YoloRule(settings.box_unit or "fraction", settings.exif != "never", settings.max_pixels)


def yolo_boxes(settings: YoloNode) -> Convention:
    """Return what YOLO's numbers were before they were converted."""
    return Convention(YOLO_BOXES.format, settings.box_unit or YOLO_BOXES.unit)


def _asked_for(found: LabelledSet, val_split: str, has_val: bool = True) -> LabelledSet:
    return replace(found, splits=_with_val(found.splits, val_split, has_val))


def _with_val(splits: Mapping[str, Anything], val_split: str, has_val: bool = True) -> dict[str, Anything]:
    """Return train and, as val, ``val_split``, where there is one; val itself only where it is wanted (``has_val``). Raises
    ConfigError for another than val that is not there."""
    if val_split != "val" and val_split not in splits:
        raise ConfigError(f"split={val_split!r}: this data has {', '.join(splits)}")
    wanted = {"train": "train"} | ({"val": val_split} if has_val or val_split != "val" else {})
    return {name: splits[source] for name, source in wanted.items() if source in splits}
