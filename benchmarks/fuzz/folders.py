"""Folders of labels as tools leave them: Pascal VOC, YOLO, and COCO as Roboflow exports it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.labels import DETECTION, LOADING, changed_json, changed_xml, picture, show, train_on
from fuzz.mutations import NUMBERS, OTHER_FILE, TEXTS, encoded, mutated_bytes
from fuzz.pool import Case, Kind
from fuzz.records import changed_yaml

from winnow.families.detection.check import check_coco, check_voc, check_yolo
from winnow.families.detection.data import coco_data, voc_data, yolo_data
from winnow.families.detection.describe import describe_data
from winnow.families.detection.formats.coco_folder import ROBOFLOW, coco_of_root, write_coco
from winnow.families.detection.formats.conversion import write_converted
from winnow.families.detection.formats.voc_folder import voc_of_root
from winnow.families.detection.formats.yolo import yolo_of_root
from winnow.families.detection.settings import CocoNode, VocNode, YoloNode
from winnow.settings import build_settings

NO_PARTS: dict[str, Any] = {"train": {"images": None, "annotations": None}, "val": None}
SPLITS = {"train": ("a", "b"), "val": ("c",)}
_NAMES = (
    "a.txt",
    "a (1).png",
    "a=b.png",
    "%20.png",
    "é.png",
    "e\u0301.png",
    "\\.png",
    "\n.png",
    "[x].png",
    "A.PNG",
    "a.jpg",
)


def _xml(name: str) -> str:
    return (
        f"<annotation><folder>x</folder><filename>{name}.png</filename><size><width>40</width><height>30</height><depth>3"
        "</depth></size><object><name>cat</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        "<xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax></bndbox></object><object><name>dog</name><difficult>1"
        "</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9.5</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )


def changed_lines(rng: random.Random, text: str) -> bytes:
    """Return a text file whose lines hold words and numbers, after changes: of its words, of its lines, or of its bytes."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, text.encode())
    lines = [line.split(" ") for line in text.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 3))):
        line = rng.choice(lines)
        place = rng.randrange(len(line))
        kind = rng.choice(("replace", "replace", "replace", "drop", "double", "line"))
        if kind == "replace":
            line[place] = str(rng.choice(rng.choice((TEXTS, NUMBERS))))
        elif kind == "drop" and len(line) > 1:
            line.pop(place)
        elif kind == "double":
            line.insert(place, line[place])
        else:
            times = rng.choice((1, 2, 20_000)) if len(" ".join(line)) < 100 else 1
            lines.insert(rng.randrange(len(lines)), line * times)
    return encoded(rng, "".join(" ".join(line) + rng.choice(("\n",) * 9 + ("\r",)) for line in lines))


def _prepare_voc(folder: Path) -> Path:
    for layout in ("lists", "splits", "flat"):
        for number, (split, names) in enumerate(SPLITS.items()):
            for name in names:
                images, labels = _voc_folders(folder / layout, split)
                images.mkdir(parents=True, exist_ok=True)
                labels.mkdir(parents=True, exist_ok=True)
                picture(images / f"{name}.png", seed=number)
                (labels / f"{name}.xml").write_text(_xml(name))
    lists = folder / "lists" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in SPLITS.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def _voc_folders(root: Path, split: str) -> tuple[Path, Path]:
    """Return where the images and the XML of a split lie in the layout that ``root`` is named after."""
    if root.name == "lists":
        return root / "JPEGImages", root / "Annotations"
    return (root / split,) * 2 if root.name == "splits" else (root / "images", root / "labels")


def _voc(rng: random.Random, shared: Path, folder: Path) -> Case:
    root = folder / rng.choice(("lists", "splits", "flat"))
    shutil.copytree(shared / root.name, root)
    files = sorted(path for path in root.rglob("*") if path.suffix in (".xml", ".txt"))
    path = rng.choice(files)
    if path.suffix == ".txt":
        path.write_bytes(changed_lines(rng, path.read_text()))
    else:
        text = path.read_text()
        path.write_bytes(mutated_bytes(rng, text.encode()) if rng.random() < 0.3 else changed_xml(rng, text))
    odd = _spoil_picture(rng, root)
    values = {**NO_PARTS, "root": str(root), "cache": str(folder / "cache")}
    readers = _readers(check_voc, voc_data, VocNode, values)
    readers["convert"] = lambda: write_converted(voc_of_root(root), folder / "converted")
    readers["describe"] = lambda: describe_data(root)
    return Case(readers, (path.name, *odd, "instances_", "nothing to learn from"))


def _spoil_picture(rng: random.Random, root: Path) -> tuple[str, ...]:
    """Sometimes rename a picture, or change its bytes; return the names that a refusal may hold then."""
    if rng.random() < 0.7:
        return ()
    path = rng.choice(sorted(root.rglob("*.png")))
    if rng.random() < 0.5:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
        return (path.name,)
    renamed = path.rename(path.with_name(rng.choice(_NAMES)))
    return path.name, renamed.stem, renamed.parent.name + "/_annotations", f"{path.stem}.xml"


def _readers(
    check: Callable[..., Any], build: Callable[..., Any], node: type[Any], values: dict[str, Any]
) -> dict[str, Callable[[], object]]:
    return {
        "check": lambda: show(check(build_settings(node, DETECTION | values, "data"), lambda *_: None)),
        "build": lambda: train_on(build(loading=LOADING, **DETECTION, **values)),
    }


_LABELS = "0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.1 0.3 0.4 0.3 0.4 0.2\n1 0.75 0.75 0.5 0.5\n"
_YAML = {"path": ".", "train": "images/train", "val": ["images/val"], "nc": 2, "names": {0: "cat", 1: "dog"}}


def _prepare_yolo(folder: Path) -> Path:
    for number, (split, names) in enumerate(SPLITS.items()):
        for name in names:
            for part in ("images", "labels"):
                (folder / part / split).mkdir(parents=True, exist_ok=True)
            picture(folder / "images" / split / f"{name}.png", seed=number)
            (folder / "labels" / split / f"{name}.txt").write_text(_LABELS)
    return folder


def _yolo(rng: random.Random, shared: Path, folder: Path) -> Case:
    root = folder / "root"
    shutil.copytree(shared, root)
    kind = rng.choice(("labels", "labels", "yaml", "yaml", "classes", "list"))
    is_listed = kind == "classes" or (kind == "labels" and rng.random() < 0.3)
    path = root / ("classes.txt" if is_listed else "data.yaml")
    tree = dict(_YAML)
    if is_listed:
        path.write_text("cat\ndog\n")
    else:
        if kind == "list":
            tree["train"] = "train.txt"
        path.write_bytes(changed_yaml(rng, tree))  # written anew below unless this is what changes
        if kind != "yaml":
            path.write_text(f"train: {tree['train']}\nval: images/val\nnames: [cat, dog]\n")
    if kind == "labels":
        path = rng.choice(sorted((root / "labels").rglob("*.txt")))
        path.write_bytes(changed_lines(rng, _LABELS))
    elif kind == "classes":
        path.write_bytes(changed_lines(rng, "cat\ndog\n"))
    elif kind == "list":
        path = root / "train.txt"
        path.write_bytes(changed_lines(rng, "".join(f"images/train/{name}.png\n" for name in SPLITS["train"])))
    odd = _spoil_picture(rng, root)
    values = {"root": str(root), "cache": str(folder / "cache")}
    readers = _readers(check_yolo, yolo_data, YoloNode, values)
    readers["convert"] = lambda: write_converted(yolo_of_root(root), folder / "converted")
    readers["describe"] = lambda: describe_data(root)
    return Case(readers, (path.name, *odd, "data.yaml", "instances_", OTHER_FILE, "nothing to learn from"))


def _prepare_roboflow(folder: Path) -> Any:
    trees: dict[str, Any] = {}
    for number, (split, names) in enumerate(SPLITS.items()):
        place = "valid" if split == "val" else split
        (folder / place).mkdir()
        for name in names:
            picture(folder / place / f"{name}.png", seed=number)
        trees[f"{place}/{ROBOFLOW}"] = {
            "info": {"version": "1", "date_created": "2024-01-01T00:00:00+00:00"}, "licenses": [{"id": 1, "name": "x"}],
            "categories": [{"id": n, "name": name, "supercategory": "pets"} for n, name in enumerate(("pets", "cat", "dog"))],
            "images": [
                {"id": n, "license": 1, "file_name": f"{name}.png", "height": 30, "width": 40, "date_captured": "2024"}
                for n, name in enumerate(names)
            ],
            "annotations": [
                {"id": n, "image_id": n % len(names), "category_id": 1 + n % 2, "bbox": [3, 4, 10.5, 8 + n], "area": 84,
                 "segmentation": [], "iscrowd": 0}
                for n in range(4)
            ],
        }  # fmt: skip
    return folder, trees


def _roboflow(rng: random.Random, shared: Any, folder: Path) -> Case:
    source, trees = shared
    root = folder / "root"
    shutil.copytree(source, root)
    changed = rng.choice(sorted(trees))
    for name, tree in trees.items():
        (root / name).write_bytes(changed_json(rng, tree))
        if name != changed:
            (root / name).write_text(json.dumps(tree))
    odd = _spoil_picture(rng, root)
    values = {**NO_PARTS, "root": str(root)}
    readers = _readers(check_coco, coco_data, CocoNode, values)
    readers["convert"] = lambda: write_coco(coco_of_root(root), folder / "converted")
    readers["describe"] = lambda: describe_data(root)
    return Case(readers, (changed, *odd, "train and val", ".png", OTHER_FILE, "nothing to learn from"))


KINDS = (
    Kind("voc", _prepare_voc, _voc),
    Kind("yolo", _prepare_yolo, _yolo),
    Kind("roboflow", _prepare_roboflow, _roboflow),
)
