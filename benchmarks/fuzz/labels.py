"""Labels: COCO, BDD100K in three generations, ALTO pages and ink COCO."""

from __future__ import annotations

import copy
import json
import random
import shutil
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutations import OTHER_FILE, RAW_JSON, encoded, json_text, mutated, mutated_bytes, odd_value
from fuzz.pool import Case, Kind
from PIL import Image, ImageDraw

from winnow.commands.data import _as_json, _print_table
from winnow.data.plan import LoadingSettings
from winnow.families.detection.check import check_bdd100k, check_splits
from winnow.families.detection.data import bdd100k_data, coco_data
from winnow.families.detection.formats.bdd100k import convert_bdd100k
from winnow.families.detection.settings import Bdd100kNode
from winnow.families.ink.lines.check import check_ink_lines
from winnow.families.ink.lines.data import ink_lines
from winnow.families.ink.lines.settings import InkLinesSettings
from winnow.settings import build_settings

LOADING = LoadingSettings(
    batch_size=2, num_workers=0, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
)
DETECTION: dict[str, Any] = {
    "name": "x", "image_size": 32, "resize": "pad", "max_bad_images": 2, "wait_for_files_seconds": 0,
    "augmentation": {"horizontal_flip": 0.5, "crop": 0.5, "photometric": 0.5, "crop_scale": (0.5, 1.0), "resize_scale": (0.5,
    1.0)},
}  # fmt: skip


def picture(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def changed_json(rng: random.Random, tree: Any) -> bytes:
    """Return a JSON file of ``tree`` after changes: of its nodes, or of its bytes."""
    if rng.random() < 0.25:
        return mutated_bytes(rng, json.dumps(tree).encode())
    while True:
        try:
            return encoded(rng, json_text(mutated(rng, copy.deepcopy(tree), partial(odd_value, rng, RAW_JSON))))
        except (
            ArithmeticError,
            ValueError,
            RecursionError,
            TypeError,
        ):  # contains itself, or has a key that JSON has not
            continue


def show(report: Any) -> None:
    """Print a report in both forms, as ``winnow data check`` does."""
    print(json.dumps(_as_json(report), indent=1, default=str))
    _print_table(report, 20)


def train_on(data: Any) -> None:
    """Read an epoch of ``data`` as training does."""
    for batch in data.train_batches(1, data.image_size):
        assert batch.num_samples > 0
    for batch in data.val_batches(data.image_size):
        assert batch.num_samples > 0


def _coco_tree() -> dict[str, Any]:
    return {
        "info": {"description": "x", "year": 2020}, "licenses": [],
        "categories": [{"id": 1, "name": "cat", "supercategory": "x"}, {"id": 2, "name": "dog"}],
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in (1, 2, 3)],
        "annotations": [
            {"id": n, "image_id": 1 + n % 3, "category_id": 1 + n % 2, "bbox": [2.5, 3, 10, 8 + n], "area": 80.0,
             "iscrowd": n // 4,
             "segmentation": [[1, 2, 3, 4, 5, 6]]}
            for n in range(5)
        ],
    }  # fmt: skip


def _prepare_coco(folder: Path) -> Any:
    images = folder / "images"
    images.mkdir()
    for number in (1, 2, 3):
        picture(images / f"{number}.png", seed=number)
    (folder / "val.json").write_text(json.dumps(_coco_tree()))
    return images, folder / "val.json", _coco_tree()


def _coco(rng: random.Random, shared: Any, folder: Path) -> Case:
    images, val, tree = shared
    path = folder / "labels.json"
    path.write_bytes(changed_json(rng, tree))
    parts: Any = {
        name: {"annotations": str(file), "images": str(images)} for name, file in (("train", path), ("val", val))
    }
    return Case(
        {
            "check": lambda: show(check_splits({"train": (path, images), "val": (val, images)}, _ignore)),
            "build": lambda: train_on(coco_data(loading=LOADING, **parts, **DETECTION)),
        },
        (path.name, "train and val", ".png", OTHER_FILE, "nothing to learn from"),
    )


def _ignore(*_: Any) -> None:
    """Take no note of the progress."""


def _prepare_bdd(folder: Path) -> Any:
    label = {
        "id": 7,
        "category": "car",
        "attributes": {"occluded": False, "crowd": False},
        "box2d": {"x1": 3, "y1": 4.5, "x2": 20, "y2": 25},
    }
    lane = {"id": "8", "category": "lane", "poly2d": [{"vertices": [[1, 2], [3, 4]], "types": "LL", "closed": False}]}
    frames = [
        {"name": f"{name}.png", "attributes": {"weather": "clear"}, "timestamp": 10000, "labels": [label, lane]}
        for name in "ab"
    ]
    single = {
        "name": "a",
        "frames": [{"timestamp": 10000, "objects": [label, lane]}],
        "attributes": {"weather": "clear"},
    }
    for split in ("train", "val"):
        (folder / f"images/100k/{split}").mkdir(parents=True)
        for name in "ab":
            picture(folder / f"images/100k/{split}/{name}.png")
        (folder / f"labels/100k/{split}").mkdir(parents=True)
    (folder / "labels/det_20").mkdir()
    (folder / "labels/det_20/det_val.json").write_text(json.dumps(frames))
    return folder, {"labels/det_20/det_train.json": frames, "labels/bdd100k_labels_images_train.json": frames,
                    "labels/100k/train/a.png.json": {**single, "name": "a.png"}}  # fmt: skip


def _bdd100k(rng: random.Random, shared: Any, folder: Path) -> Case:
    root = folder / "root"
    shutil.copytree(shared[0], root)
    name = rng.choice(list(shared[1]))
    (root / name).write_bytes(changed_json(rng, shared[1][name]))
    values = {"root": str(root), "cache": str(folder / "cache")}
    return Case(
        {
            "check": lambda: show(check_bdd100k(build_settings(Bdd100kNode, DETECTION | values, "data"), _ignore)),
            "build": lambda: train_on(bdd100k_data(loading=LOADING, **values, **DETECTION)),
            "convert": lambda: convert_bdd100k(root, folder / "converted"),
        },
        (Path(name).name, "instances_train_", "instances_train.json", ".png", OTHER_FILE, "nothing to learn from"),
    )


def _prepare_pages(folder: Path) -> Any:
    for name in ("p", "q"):
        page = Image.new("L", (220, 120), 255)
        for top in (30, 70):
            ImageDraw.Draw(page).line([(20, top), (60, top - 12), (100, top), (200, top - 6)], fill=0, width=3)
        page.save(folder / f"{name}.png")
    lines = "".join(
        f'<TextLine ID="l{top}" HPOS="10" VPOS="{top - 20}" WIDTH="200" HEIGHT="30" BASELINE="10,{top} 210,{top}"><Shape>'
        f'<Polygon POINTS="10,{top - 20} 210,{top - 20} 210,{top + 8} 10,{top + 8}"/></Shape><String CONTENT="x"/></TextLine>'
        for top in (30, 70)
    )
    alto = (
        '<?xml version="1.0" encoding="UTF-8"?><alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description><MeasurementUnit>pixel'
        "</MeasurementUnit><sourceImageInformation><fileName>p.png</fileName></sourceImageInformation></Description><Layout>"
        f'<Page WIDTH="220" HEIGHT="120" ID="p"><PrintSpace><TextBlock>{lines}</TextBlock></PrintSpace></Page></Layout></alto>'
    )
    (folder / "q.xml").write_text(alto.replace("p.png", "q.png"))
    coco = {
        "images": [{"id": 1, "file_name": "p.png", "width": 220, "height": 120}],
        "annotations": [
            {"id": top, "image_id": 1, "segmentation": [[10, top - 20, 210, top - 20, 210, top + 8, 10, top + 8]],
             "baseline": [10, top, 210, top]}
            for top in (30, 70)
        ],
    }  # fmt: skip
    return folder, alto, coco


def _pages(path: Path, shared: Any) -> Case:
    own = {"images": str(shared[0]), "annotations": str(path)}
    val = {"images": str(shared[0]), "annotations": str(shared[0] / "q.xml")}
    values = {"name": "x", "train": own, "val": val, "val_part": 0.5, "split_by": "page", "image_size": 32, "shift": 4,
              "cache": str(path.parent / "cache")}  # fmt: skip
    settings = build_settings(InkLinesSettings, values, "data")
    return Case(
        {
            "check": lambda: show(check_ink_lines(settings, _ignore)),
            "build": lambda: train_on(ink_lines(loading=LOADING, **values)),
        },
        (path.name, "p.png", "q.png", "lines holds ink", "data.image_size"),
    )


def _alto(rng: random.Random, shared: Any, folder: Path) -> Case:
    path = folder / "p.xml"
    path.write_bytes(mutated_bytes(rng, shared[1].encode()) if rng.random() < 0.3 else changed_xml(rng, shared[1]))
    return _pages(path, shared)


def changed_xml(rng: random.Random, text: str) -> bytes:
    """Return an XML file of ``text`` after changes of its elements."""
    root = ElementTree.fromstring(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        elements = list(root.iter())
        parents = {child: parent for parent in elements for child in parent}
        element = rng.choice(elements)
        odd = str(odd_value(rng))
        kind = rng.choice(("attribute", "attribute", "attribute", "points", "delete", "drop", "double", "text", "tag"))
        if kind == "attribute" and element.attrib:
            element.set(rng.choice(list(element.attrib)), odd)
        elif kind == "points" and element.get("POINTS"):
            words = element.attrib["POINTS"].split(" ")
            words[rng.randrange(len(words))] = odd
            element.set("POINTS", " ".join(words))
        elif kind == "delete" and element.attrib:
            element.attrib.pop(rng.choice(list(element.attrib)))
        elif kind == "drop" and element in parents:
            parents[element].remove(element)
        elif kind == "double" and element in parents:
            parents[element].append(copy.deepcopy(element))
        elif kind == "text":
            element.text = odd
        elif kind == "tag":
            element.tag = rng.choice(("x", "Page", "TextLine", "Polygon", "alto", "fileName", "MeasurementUnit"))
    written = ElementTree.tostring(root, encoding="unicode")
    head = rng.choice(_XML_HEADS)
    return head.encode(rng.choice(("utf-8",) * 5 + ("utf-16",)), "replace") + written.encode("utf-8", "surrogatepass")


_XML_HEADS = (
    *[""] * 8, "<?xml version='1.0' encoding='zork'?>", "<?xml version='1.0' encoding='utf-7'?>",
    "<?xml version='1.0' encoding='utf-16'?>",
    "<?xml version='1.0' encoding='shift_jis'?>", "<?xml version='1.1'?>", "<?xml version='1.0' encoding='idna'?>",
    "<?xml version='1.0' encoding='hex'?>", "<!DOCTYPE a [<!ENTITY x 'y'>]>", "<!DOCTYPE a SYSTEM 'file:///etc/passwd'>",
    "<a>" * 100_000,
    "<?xml version='1.0' encoding='undefined'?>", "<!--" + "x" * 10**6 + "-->",
)  # fmt: skip


def _ink_coco(rng: random.Random, shared: Any, folder: Path) -> Case:
    path = folder / "pages.json"
    path.write_bytes(changed_json(rng, shared[2]))
    return _pages(path, shared)


KINDS = (
    Kind("coco", _prepare_coco, _coco), Kind("bdd100k", _prepare_bdd, _bdd100k), Kind("alto", _prepare_pages, _alto),
    Kind("ink_coco", _prepare_pages, _ink_coco),
)  # fmt: skip
