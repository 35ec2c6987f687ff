"""Finds the splits of a folder with COCO files: as Roboflow exports it, as COCO itself and ``winnow convert`` lay it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.errors import DataError
from winnow.families.detection.formats.bdd100k import write_atomically
from winnow.families.detection.formats.conversion import SPLITS, link_images
from winnow.reading import read_json

ROBOFLOW = "_annotations.coco.json"


def coco_of_root(root: Path) -> dict[str, tuple[Path, Path]]:
    """Find ``{split: (COCO file, folder of its images)}`` under ``root``: ``train|valid|test/_annotations.coco.json`` beside the
    images, or ``annotations/[instances_]train….json`` with ``images/train``, ``train…`` or ``images``.

    Raises DataError where there is no train split.
    """
    found = {}
    for split, names in SPLITS.items():
        paths = next((paths for name in names if (paths := _find(root, name)) is not None), None)
        if paths is not None:
            found[split] = paths
    if "train" not in found:
        raise DataError(
            f"{root} has no COCO files of a train split; looked for train/{ROBOFLOW} beside the images, and for "
            "annotations/instances_train….json with images/train, train… or images"
        )
    return found


def has_coco(root: Path) -> bool:
    """Tell whether ``root`` has the COCO file of any split in such a layout."""
    return any(_find(root, name) is not None for names in SPLITS.values() for name in names)


def write_coco(found: Mapping[str, tuple[Path, Path]], target: Path) -> dict[str, Counter[str]]:
    """Write the splits under ``target`` as ``annotations/instances_….json``, their folders as links in ``images/``; counts by
    split."""
    counts = {}
    for split, (path, images) in found.items():
        coco = read_json(path, "a COCO file", DataError)
        counts[split] = Counter(images=_count(coco, "images", path), boxes=_count(coco, "annotations", path))
        link_images(images, target / "images" / split)
        write_atomically(target / f"annotations/instances_{split}.json", coco)
    return counts


def _count(coco: Any, key: str, path: Path) -> int:
    if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
        raise DataError(f"{path} is no COCO file: it has no list {key}")
    return len(coco[key])


def _find(root: Path, name: str) -> tuple[Path, Path] | None:
    if (root / name / ROBOFLOW).is_file():
        return root / name / ROBOFLOW, root / name
    folder = root / "annotations"
    exact = [folder / f"instances_{name}.json", folder / f"{name}.json"]
    files = [path for path in exact if path.is_file()] or sorted(folder.glob(f"instances_{name}[0-9]*.json"))
    if not files:
        return None
    part = files[0].stem.removeprefix("instances_")  # train2017
    images = [root / "images" / part, root / part, root / "images" / name, root / name, root / "images"]
    return next(((files[0], path) for path in images if path.is_dir()), None)
