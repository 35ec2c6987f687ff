"""Labels of pairs: LLVIP's XML, and KAIST's JSON, XML and txt."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.labels import DETECTION, LOADING, changed_json, changed_xml, picture, show, train_on
from fuzz.mutations import mutated_bytes
from fuzz.pool import Case, Kind

from winnow.families.pairs.check import check_kaist, check_llvip
from winnow.families.pairs.data import kaist, llvip
from winnow.families.pairs.settings import CameraNode
from winnow.settings import build_settings

VALUES: dict[str, Any] = {
    **DETECTION, "modalities": ["visible", "infrared"], "modality_dropout": {"visible": 0.0, "infrared": 0.0},
    "missing_partner": "error", "unlabelled": "skip", "llvip_root": None, "llvip_annotations": None, "kaist_root": None,
    "kaist_annotations": None, "llvip_split": {"train": ["01"], "val": ["02"]},
    "kaist_split": {"train": ["set00"], "val": ["set01"]},
}  # fmt: skip
_VOC = (
    "<annotation><size><width>40</width><height>30</height><depth>1</depth></size><object><name>person</name>"
    "<difficult>0</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax></bndbox></object></annotation>"
)
_KAIST_XML = (
    "<annotation><size><width>40</width><height>30</height></size><object><name>person</name><bndbox><x>3</x><y>4</y>"
    "<w>12</w><h>20</h></bndbox><difficult>0</difficult><occlusion>0</occlusion></object></annotation>"
)
_TXT = "% bbGt version=3\nperson 3 4 12 20 0 0 0 0 0 0 0\npeople 1 2 30 20 1 0 0 0 0 1 0\n"
_FRAMES = ("set00/V000/I00019", "set01/V000/I00019")
_JSON = {
    "images": [{"id": n, "im_name": name, "width": 40, "height": 30} for n, name in enumerate(_FRAMES)],
    "categories": [{"id": 0, "name": "__ignore__"}, {"id": 1, "name": "person"}],
    "annotations": [
        {"id": n, "image_id": n % 2, "category_id": 1, "bbox": [3, 4, 12, 20], "height": 20, "occlusion": n, "ignore": 0}
        for n in range(3)
    ],
}  # fmt: skip


def _prepare_llvip(folder: Path) -> Path:
    for number, name in enumerate(("010001", "020001")):
        for modality in ("visible", "infrared"):
            (folder / modality / "train").mkdir(parents=True, exist_ok=True)
            picture(folder / modality / f"train/{name}.png", seed=2 * number + (modality == "visible"))
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / f"Annotations/{name}.xml").write_text(_VOC)
    return folder


def _llvip(rng: random.Random, shared: Path, folder: Path) -> Case:
    root = folder / "root"
    shutil.copytree(shared, root)
    path = root / "Annotations/010001.xml"
    path.write_bytes(mutated_bytes(rng, _VOC.encode()) if rng.random() < 0.3 else changed_xml(rng, _VOC))
    return _case(check_llvip, llvip, VALUES | {"llvip_root": str(root)}, path)


def _prepare_kaist(folder: Path) -> Path:
    for number, name in enumerate(_FRAMES):
        video, frame = name.rsplit("/", 1)
        for modality in ("visible", "lwir"):
            (folder / video / modality).mkdir(parents=True)
            picture(folder / video / modality / f"{frame}.png", seed=2 * number + (modality == "visible"))
        (folder / "val" / video).mkdir(parents=True)
        (folder / "val" / f"{name}.txt").write_text(_TXT)
    return folder


def _kaist(suffix: str, content: Callable[[random.Random], bytes]) -> Callable[[random.Random, Path, Path], Case]:
    def case(rng: random.Random, shared: Path, folder: Path) -> Case:
        root = folder / "root"
        shutil.copytree(shared, root)
        path = root / ("labels.json" if suffix == "json" else f"train/{_FRAMES[0]}.{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(rng))
        named = ["labels.json"] if suffix == "json" else ["train"]
        return _case(check_kaist, kaist, VALUES | {"kaist_root": str(root), "kaist_annotations": [*named, "val"]}, path)

    return case


def _case(check: Callable[..., Any], build: Callable[..., Any], values: dict[str, Any], path: Path) -> Case:
    return Case(
        {
            "check": lambda: show(check(build_settings(CameraNode, values, "data"), lambda *_: None)),
            "build": lambda: train_on(build(loading=LOADING, **values)),
        },
        (path.name, ".png", "nothing to learn from", "no train pair", "no val pair"),
    )


KINDS = (
    Kind("llvip", _prepare_llvip, _llvip),
    Kind("kaist_json", _prepare_kaist, _kaist("json", lambda rng: changed_json(rng, json.loads(json.dumps(_JSON))))),
    Kind("kaist_xml", _prepare_kaist, _kaist("xml", lambda rng: changed_xml(rng, _KAIST_XML))),
    Kind("kaist_txt", _prepare_kaist, _kaist("txt", lambda rng: mutated_bytes(rng, _TXT.encode()))),
)
