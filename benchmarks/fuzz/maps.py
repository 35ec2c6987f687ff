"""Maps: nuScenes' tables, map expansions, infos of mmdetection3d, tracked scenes, and converted ground truth."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.labels import LOADING, changed_json, show, train_on
from fuzz.mutations import mutated_bytes
from fuzz.pool import Case, Kind
from nuscenes_files import CITY_MAPS, VERSION, write_nuscenes

from winnow.families.maps.check import check_map_rendered, check_nuscenes_map
from winnow.families.maps.conversion import convert_nuscenes_map, describe
from winnow.families.maps.data import map_rendered, nuscenes_map
from winnow.families.maps.drives import INFOS, TRACKS
from winnow.families.maps.frame import CAMERAS, rotation_of
from winnow.families.maps.rendering.views import LIDAR_TO_EGO, nominal_cameras
from winnow.families.maps.settings import MapRenderedSettings, NuscenesMapSettings
from winnow.families.maps.truth import Recipe
from winnow.settings import build_settings

COMMON: dict[str, Any] = {
    "name": "x", "map_frame": "lidar", "region": (30.0, 60.0), "image_size": 32, "num_points": 20,
    "augmentation": {"flip": 0.5, "brightness": 0.2, "noise": 0.0},
}  # fmt: skip
CITY = "singapore-onenorth"


def _ignore(split: str, done: int, total: int) -> None:
    del split, done, total


def _nuscenes_values(root: Path, truth: Path) -> dict[str, Any]:
    own = {
        "root": str(root),
        "ground_truth": str(truth),
        "boundary_layers": ("road_segment", "lane"),
        "split": "official",
    }
    return {**COMMON, **own, "max_bad_samples": 2, "wait_for_files_seconds": 0.0}


def _prepare_nuscenes(folder: Path) -> Path:
    root = write_nuscenes(folder / "nuscenes")
    convert_nuscenes_map(root, root / "truth", Recipe())
    return root


def _converted(root: Path, truth: Path) -> dict[str, Callable[[], object]]:
    values = _nuscenes_values(root, truth)
    settings = build_settings(NuscenesMapSettings, values, "data")
    return {
        "check": lambda: show(check_nuscenes_map(settings, _ignore)),
        "build": lambda: train_on(nuscenes_map(loading=LOADING, **values)),
    }


def _convert(root: Path, folder: Path) -> Case:
    readers: dict[str, Callable[[], object]] = {
        "convert": lambda: print(describe(convert_nuscenes_map(root, folder / "truth", Recipe())))
    }
    return Case(
        readers | _converted(root, folder / "truth"),
        (".json", ".npz", ".jpg", "truth", "none of the", "samples can't be read"),
    )


def _table(rng: random.Random, shared: Path, folder: Path) -> Case:
    root = folder / "nuscenes"
    shutil.copytree(shared / VERSION, root / VERSION)
    for name in ("maps", "samples"):
        (root / name).symlink_to(shared / name)
    path = rng.choice(sorted((root / VERSION).glob("*.json")))
    path.write_bytes(changed_json(rng, json.loads(path.read_text())))
    return _convert(root, folder)


def _expansion(rng: random.Random, shared: Path, folder: Path) -> Case:
    root = folder / "nuscenes"
    shutil.copytree(shared / "maps", root / "maps")
    for name in (VERSION, "samples"):
        (root / name).symlink_to(shared / name)
    path = root / "maps" / "expansion" / f"{rng.choice(sorted(CITY_MAPS))}.json"
    path.write_bytes(changed_json(rng, json.loads(path.read_text())))
    return _convert(root, folder)


def _truth(rng: random.Random, shared: Path, folder: Path) -> Case:
    shutil.copytree(shared / "truth", folder / "truth")
    path = rng.choice(sorted((folder / "truth").iterdir()))
    if path.suffix == ".json":
        path.write_bytes(changed_json(rng, json.loads(path.read_text())))
    elif rng.random() < 0.5:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    else:
        _spoil(rng, path)
    return Case(
        _converted(shared, folder / "truth"), (".json", ".npz", ".jpg", "none of the", "samples can't be read", "truth")
    )


def _spoil(rng: random.Random, path: Path) -> None:
    """Change one array of a file: its values, its shape, its type, or leave it out."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = rng.choice(sorted(arrays))
    array = arrays.pop(name)
    changes = [
        lambda: array[: len(array) // 2], lambda: array.astype(str), lambda: array[None], lambda: np.zeros((0,)),
        lambda: array.ravel(), lambda: np.concatenate([array, array]),
    ]  # fmt: skip
    if array.dtype.kind in "fi":
        changes += [lambda: array * -1, lambda: array + np.inf, lambda: array * 0, lambda: array.astype(np.float16)]
    if rng.random() < 0.9:
        arrays[name] = rng.choice(changes)()
    np.savez(path.open("wb"), **arrays)


def _tracked() -> dict[str, Any]:
    return {
        "scene": "scene-1", "location": CITY, "date": "2018", "sample_rate": 0.1,
        "ego": {"xy": [[0.5 * step, 0.0] for step in range(16)], "heading": [0.01 * step for step in range(16)]},
        "map_features": [
            {"id": 1, "nuscenes_layer": "lane_divider", "polyline": [[-50, 0], [0, 1], [50, 0]]},
            {"id": 2, "nuscenes_layer": "drivable_area_boundary",
             "polyline": [[-50, -4], [50, -4], [50, 4], [-50, 4], [-50, -4]]},
            {"id": 3, "nuscenes_layer": "drivable_area_boundary", "polyline": [[2, 1], [4, 1], [4, 2], [2, 2], [2, 1]]},
        ],
    }  # fmt: skip


def _infos() -> dict[str, Any]:
    images = {}
    for name, camera in zip(CAMERAS, nominal_cameras(), strict=True):
        images[name] = {
            "img_path": f"{name}.jpg", "cam2img": camera.intrinsics.tolist(),
            "lidar2cam": (camera.ego_to_camera @ LIDAR_TO_EGO).tolist(),
        }  # fmt: skip
    pose = np.eye(4)
    pose[:3, :3] = rotation_of(np.array([np.cos(0.1), 0.0, 0.0, np.sin(0.1)]))
    sample = {
        "token": "a",
        "ego2global": pose.tolist(),
        "images": images,
        "lidar_points": {"lidar2ego": LIDAR_TO_EGO.tolist()},
    }
    return {"metainfo": {}, "data_list": [sample]}


def _drives(rng: random.Random, shared: Any, folder: Path) -> Case:
    del shared
    (folder / TRACKS).mkdir()
    files = {folder / TRACKS / "scene-1.json": _tracked(), folder / INFOS: _infos()}
    changed = rng.choice(sorted(files))
    for path, tree in files.items():
        path.write_bytes(changed_json(rng, tree) if path == changed else json.dumps(tree).encode())
    values = {**COMMON, "root": str(folder), "train_cities": [CITY], "val_cities": [], "seconds": 0.5}
    settings = build_settings(MapRenderedSettings, values, "data")
    return Case(
        {
            "check": lambda: show(check_map_rendered(settings, _ignore)),
            "build": lambda: train_on(map_rendered(loading=LOADING, **values)),
        },
        (changed.name, TRACKS),
    )


KINDS = (
    Kind("nuscenes table", _prepare_nuscenes, _table),
    Kind("map expansion", _prepare_nuscenes, _expansion),
    Kind("map truth", _prepare_nuscenes, _truth),
    Kind("drives", lambda folder: None, _drives),
)
