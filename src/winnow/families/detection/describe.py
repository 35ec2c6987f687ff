"""Recognises what a folder or file of detection data holds, counts it, and says how to train on it."""

from __future__ import annotations

import contextlib
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
from winnow.families.detection.formats.other_files import content_of_another_kind
from winnow.families.detection.formats.voc_folder import voc_of_root
from winnow.families.detection.formats.yolo import class_list_in, yaml_in, yolo_of_root
from winnow.families.detection.rules.label_rules import COCO_BOXES, CORNERS, YOLO_BOXES, Reading
from winnow.reading import read_xml

_HEAD = 4096
_NATIVE = {"coco": COCO_BOXES, "voc": CORNERS, "bdd100k": CORNERS, "yolo": YOLO_BOXES}


@dataclass(frozen=True)
class DescribedSplit:
    """A split: how many images and usable boxes it has, how many images without one, the smallest and the largest (width, height)
    in px, the boxes of each class, and ``notes`` on what is not as it should be."""

    num_images: int
    num_boxes: int
    num_empty: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    boxes_of: Mapping[str, int]
    notes: tuple[str, ...] = ()


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
        splits = {
            split: _described(read_table(file, Reading(images, native=_NATIVE[name])))
            for split, file, images in _coco_files(name, path, Path(folder))
        }
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
        with contextlib.suppress(OSError), path.open("rb") as file:
            words = content_of_another_kind(file.read(_HEAD))
            if words is not None:
                raise DataError(f"{path} {words}")
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


def _coco_files(name: str, path: Path, folder: Path) -> Iterator[tuple[str, Path, Path | None]]:
    """Give split, COCO file and folder of images of each, None where that need not be known; those that are not COCO are written
    into ``folder``."""
    if name == "coco":
        if path.is_file():
            yield "all", path, None
        else:
            yield from ((split, *paths) for split, paths in coco_of_root(path).items())
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
        yield split, folder / f"{split}.json", None


def _described(table: CocoTable) -> DescribedSplit:
    counts = np.bincount(table.labels[table.keep & (table.labels >= 0)], minlength=len(table.class_names)).tolist()
    widths, heights = table.widths[table.image_keep], table.heights[table.image_keep]
    if not len(widths):
        raise DataError(f"{table.path} lists no images that can be used")
    num_images = int(table.image_keep.sum())
    notes = [f"{len(rows)} × {rule.label}" for rule, rows in table.violations.items() if rule.is_problem]
    if table.misfit is not None:
        notes.append(f"boxes of another convention: {table.misfit}")
    return DescribedSplit(
        num_images=num_images,
        num_boxes=int(table.keep.sum()),
        num_empty=num_images - len(set(table.image_rows[table.keep].tolist())),
        smallest=(int(widths.min()), int(heights.min())),
        largest=(int(widths.max()), int(heights.max())),
        boxes_of=dict(zip(table.class_names, counts, strict=True)),
        notes=tuple(notes),
    )
