"""Recognises what a folder or file of detection data holds, counts it, and says how to train on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from winnow.errors import DataError
from winnow.families.detection.formats.bdd100k import find_sources, to_coco, write_atomically
from winnow.families.detection.formats.coco_folder import ROBOFLOW, coco_of_root, has_coco
from winnow.families.detection.formats.coco_table import CocoTable, read_table
from winnow.families.detection.formats.conversion import files_below
from winnow.families.detection.formats.conversion import to_coco as labels_to_coco
from winnow.families.detection.formats.voc_folder import voc_of_root
from winnow.families.detection.formats.yolo import class_list_in, yaml_in, yolo_of_root
from winnow.reading import read_xml


@dataclass(frozen=True)
class DescribedSplit:
    """A split: how many images and usable boxes it has, how many images without one, the smallest and the largest (width, height)
    in px, and the boxes of each class."""

    num_images: int
    num_boxes: int
    num_empty: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    boxes_of: Mapping[str, int]


@dataclass(frozen=True)
class Description:
    """What data is: its ``format`` in words, the overrides that train on it, the first of them its ``data`` choice, and its
    splits; those of one COCO file are ``all``, whose folder of images the user has to name."""

    format: str
    overrides: Mapping[str, str]
    splits: Mapping[str, DescribedSplit]


def describe_data(path: Path) -> Description:
    """Recognise and count what ``path`` holds. Raises DataError for what is unknown, saying what was looked for, and for what
    is known and can't be read."""
    name, words = _recognise(path)
    with tempfile.TemporaryDirectory() as folder:
        splits = {split: _described(read_table(file)) for split, file in _coco_files(name, path, Path(folder))}
    overrides = {"data": name, "data.root": str(path)}
    if path.is_file() and name == "coco":
        overrides = {
            "data": name,
            "data.train.annotations": str(path),
            "data.train.images": "FOLDER",
            "data.val": "null",
        }
    return Description(words, overrides, splits)


def _recognise(path: Path) -> tuple[str, str]:
    """Return the ``data`` choice that reads ``path``, and what it is in words."""
    if path.is_file() and path.suffix.lower() == ".json":
        return "coco", "COCO JSON, one file"
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return "yolo", "YOLO"
    if not path.is_dir():
        raise DataError(f"{path} is no folder, no JSON and no data.yaml")
    if has_coco(path):
        is_roboflow = any(path.glob(f"*/{ROBOFLOW}"))
        return "coco", "COCO JSON, Roboflow's export" if is_roboflow else "COCO JSON"
    if find_sources(path):
        return "bdd100k", "BDD100K"
    if yaml_in(path) is not None or class_list_in(path) is not None:
        return "yolo", "YOLO"
    xml = files_below(path, frozenset((".xml",)))
    if xml and read_xml(xml[0], "VOC annotations", DataError).tag == "annotation":
        return "voc", "Pascal VOC"
    raise DataError(
        f"{path} holds nothing that is known here; looked for COCO JSON (train/_annotations.coco.json, annotations/"
        "instances_train….json), BDD100K (images/100k with labels), YOLO (data.yaml, classes.txt) and Pascal VOC (XML files)"
    )


def _coco_files(name: str, path: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Give split and COCO file of each; those that are not COCO are written into ``folder``."""
    if name == "coco":
        found = coco_of_root(path) if path.is_dir() else {"all": (path, path.parent)}
        yield from ((split, annotations) for split, (annotations, _) in found.items())
        return
    if name == "bdd100k":
        contents = {split: to_coco(source)[0] for split, source in find_sources(path).items()}
    else:
        contents = {
            split: coco
            for split, (coco, _) in labels_to_coco((voc_of_root if name == "voc" else yolo_of_root)(path)).items()
        }
    for split, content in contents.items():
        write_atomically(folder / f"{split}.json", content)
        yield split, folder / f"{split}.json"


def _described(table: CocoTable) -> DescribedSplit:
    counts = np.bincount(table.labels[table.keep & (table.labels >= 0)], minlength=len(table.class_names)).tolist()
    widths, heights = table.widths[table.image_keep], table.heights[table.image_keep]
    if not len(widths):
        raise DataError(f"{table.path} lists no images that can be used")
    num_images = int(table.image_keep.sum())
    return DescribedSplit(
        num_images=num_images,
        num_boxes=int(table.keep.sum()),
        num_empty=num_images - len(set(table.image_rows[table.keep].tolist())),
        smallest=(int(widths.min()), int(heights.min())),
        largest=(int(widths.max()), int(heights.max())),
        boxes_of=dict(zip(table.class_names, counts, strict=True)),
    )
