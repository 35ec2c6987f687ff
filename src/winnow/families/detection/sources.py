"""Finds the COCO files and image folders that keys of ``data=coco``, ``voc`` and ``yolo`` name, converted where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from winnow.errors import ConfigError
from winnow.families.detection.formats.coco_folder import coco_of_root
from winnow.families.detection.formats.conversion import LabelledSet, convert_once
from winnow.families.detection.formats.voc_folder import voc_of_parts, voc_of_root
from winnow.families.detection.formats.yolo import yolo_of_root
from winnow.families.detection.settings import CocoNode, VocNode, YoloNode


def find_coco(settings: CocoNode) -> dict[str, tuple[Path, Path]]:
    """Find (annotation file, folder of its images) of train and val; no val where ``data.val`` is null or has no annotations.

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
        wanted = ("train",) if settings.val is None else ("train", "val")
        return {split: paths for split, paths in splits.items() if split in wanted}
    found = {}
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
    return found


def find_voc(settings: VocNode) -> dict[str, tuple[Path, Path]]:
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
    found = voc_of_parts(named) if settings.root is None else voc_of_root(Path(settings.root))
    found = _without_test(found)
    if settings.val is None:
        found = replace(found, splits={"train": found.splits["train"]})
    return convert_once(found, Path(settings.cache), "voc")


def find_yolo(settings: YoloNode) -> dict[str, tuple[Path, Path]]:
    """Find (annotation file, folder of its images) of train and val, converted first where they are not."""
    return convert_once(_without_test(yolo_of_root(Path(settings.root))), Path(settings.cache), "yolo")


def _without_test(found: LabelledSet) -> LabelledSet:
    return replace(found, splits={split: source for split, source in found.splits.items() if split != "test"})
