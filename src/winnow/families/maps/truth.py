"""Converted ground truth in files: per scene one ``.npz`` without objects, and an index of all scenes of a recipe."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from winnow.errors import DataError
from winnow.families.maps.frame import FARTHEST_M, NUM_CAMERAS, MapFrame, Region
from winnow.families.maps.keyframe import Camera, Keyframe, Refused
from winnow.families.maps.lines import CLASSES, MapLines
from winnow.reading import NOT_READ, as_record, read_arrays, read_json, reason
from winnow.run_folder import whole_file, write_whole

_VERSION = 1
"""Of the recipe's algorithm and of the files, part of every key."""


@dataclass(frozen=True)
class Recipe:
    """What ground truth depends on besides the map file and the samples: MapTR's with its defaults. ``boundary_layers`` are
    those whose common edges are boundaries."""

    map_frame: MapFrame = "lidar"
    width: float = 30.0
    length: float = 60.0
    boundary_layers: tuple[str, ...] = ("road_segment", "lane")

    @property
    def region(self) -> Region:
        return Region(self.width, self.length)

    @property
    def key(self) -> str:
        return self.key_with()

    def key_with(self, *more: str) -> str:
        """Return a key that changes with the recipe, and with ``more``."""
        content = [_VERSION, CLASSES, asdict(self), *more]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class SceneEntry:
    """A scene in the index."""

    name: str
    city: str
    file: str
    num_samples: int


@dataclass(frozen=True)
class TruthIndex:
    """All scenes that were converted by one recipe: ``version`` names the tables (``v1.0-mini``) or ``infos``; ``lines`` counts
    by class, ``dropped`` by what was dropped or repaired; ``refused`` are samples that can't be used: kind, token, why."""

    version: str
    recipe: dict[str, Any]
    scenes: list[SceneEntry]
    lines: dict[str, int]
    dropped: dict[str, int]
    refused: list[tuple[str, str, str]]

    @property
    def num_samples(self) -> int:
        return sum(scene.num_samples for scene in self.scenes)

    def write(self, path: Path) -> None:
        write_whole(path, json.dumps(asdict(self), indent=1))


def index_path(folder: Path, recipe: Recipe) -> Path:
    return folder / f"index.{recipe.key}.json"


def read_index(folder: Path, recipe: Recipe) -> TruthIndex:
    """Return the index of a recipe. Raises DataError where there is none, with the command that makes it."""
    path = index_path(folder, recipe)
    if not path.exists():
        layers = " ".join(recipe.boundary_layers)
        raise DataError(
            f"{folder} holds no ground truth for data.map_frame={recipe.map_frame}, data.region=[{recipe.width:g}, "
            f"{recipe.length:g}], data.boundary_layers=[{', '.join(recipe.boundary_layers)}]; make it by: winnow convert "
            f"nuscenes-map ROOT {folder} --map-frame {recipe.map_frame} --region {recipe.width:g} {recipe.length:g} "
            f"--boundary-layers {layers}"
        )
    try:
        return as_record(TruthIndex, read_json(path, "an index of ground truth", DataError))
    except ValueError as error:
        raise DataError(f"{path} can't be read as an index of ground truth: {error}") from error


@dataclass(frozen=True, eq=False)
class SceneTruth:
    """The keyframes of one scene with the lines of each; ``dropped`` counts what of the map's lines was dropped here, ``repairs``
    what of the whole map could not be taken as it is."""

    keyframes: Sequence[Keyframe]
    lines: Sequence[MapLines]
    dropped: Counter[str]
    repairs: Counter[str]

    def write(self, path: Path) -> None:
        cameras = [list(keyframe.cameras) for keyframe in self.keyframes]
        line_counts = [len(lines) for lines in self.lines]
        ends = [np.diff(lines.starts) for lines in self.lines]
        arrays = {
            "tokens": np.array([keyframe.token for keyframe in self.keyframes]),
            "xy": np.array([keyframe.xy for keyframe in self.keyframes]),
            "yaw": np.array([keyframe.yaw for keyframe in self.keyframes]),
            "lidar_to_ego": np.array([keyframe.lidar_to_ego for keyframe in self.keyframes]),
            "paths": np.array([[camera.path for camera in own] for own in cameras]),
            "sizes": np.array([[(camera.width, camera.height) for camera in own] for own in cameras], np.int64),
            "intrinsics": np.array([[camera.intrinsics for camera in own] for own in cameras]),
            "ego_to_camera": np.array([[camera.ego_to_camera for camera in own] for own in cameras]),
            "line_counts": np.array(line_counts, np.int64),
            "point_counts": np.concatenate(ends),
            "labels": np.concatenate([lines.labels for lines in self.lines]),
            "vertices": np.concatenate([lines.vertices for lines in self.lines]),
            **_counter_arrays("dropped", self.dropped), **_counter_arrays("repairs", self.repairs),
        }  # fmt: skip
        with whole_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path, scene: str, city: str) -> Self:
        """Return what ``write`` wrote. Raises DataError for a file that is damaged or gone."""
        try:
            arrays = read_arrays(path, DataError)
            keyframes = _keyframes(arrays, scene, city)
            counts = arrays["line_counts"]
            if counts.shape != (len(keyframes),) or int(counts.sum()) != len(arrays["labels"]):
                raise ValueError("its line_counts do not fit")
            return cls(keyframes, _lines(arrays), _counter(arrays, "dropped"), _counter(arrays, "repairs"))
        except (DataError, *NOT_READ) as error:
            raise DataError(
                f"the ground truth {path} can't be read: {reason(error)}; delete it and convert again"
            ) from error


def _keyframes(arrays: Mapping[str, NDArray[Any]], scene: str, city: str) -> list[Keyframe]:
    count = len(arrays["tokens"])
    shapes = {
        "xy": (2,), "yaw": (), "lidar_to_ego": (4, 4), "paths": (NUM_CAMERAS,), "sizes": (NUM_CAMERAS, 2),
        "intrinsics": (NUM_CAMERAS, 3, 3), "ego_to_camera": (NUM_CAMERAS, 4, 4),
    }  # fmt: skip
    for name, shape in shapes.items():
        if arrays[name].shape != (count, *shape) or (name != "paths" and not _are_lengths(arrays[name])):
            raise ValueError(f"its {name} are no {count} × {shape} numbers")
    if count and not (0 < arrays["sizes"].min() <= arrays["sizes"].max() < 1 << 16):
        raise ValueError("its sizes are none of images")
    keyframes = []
    for row in range(count):
        cameras = tuple(
            Camera(
                str(arrays["paths"][row, camera]),
                int(arrays["sizes"][row, camera, 0]),
                int(arrays["sizes"][row, camera, 1]),
                arrays["intrinsics"][row, camera],
                arrays["ego_to_camera"][row, camera],
            )
            for camera in range(NUM_CAMERAS)
        )
        place = arrays["xy"][row], float(arrays["yaw"][row]), arrays["lidar_to_ego"][row]
        keyframes.append(Keyframe(str(arrays["tokens"][row]), scene, city, *place, cameras))
    return keyframes


def _lines(arrays: Mapping[str, NDArray[Any]]) -> list[MapLines]:
    vertices, labels, points = arrays["vertices"], arrays["labels"], arrays["point_counts"]
    if vertices.shape != (int(points.sum()), 2) or points.shape != labels.shape or not _are_lengths(vertices):
        raise ValueError("its vertices do not fit")
    if len(points) and (points.min() < 2 or labels.min() < 0 or labels.max() >= len(CLASSES)):
        raise ValueError("it holds lines of fewer than two points or of unknown classes")
    line_ends = np.concatenate([[0], np.cumsum(arrays["line_counts"])])
    point_ends = np.concatenate([[0], np.cumsum(points)])
    lines = []
    for first, last in itertools.pairwise(line_ends.tolist()):
        begin, end = point_ends[first], point_ends[last]
        starts = (point_ends[first : last + 1] - begin).astype(np.int64)
        lines.append(MapLines(vertices[begin:end].astype(np.float32), starts, labels[first:last].astype(np.int64)))
    return lines


def _are_lengths(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "fi" and bool((np.abs(array) <= FARTHEST_M).all())


def _counter_arrays(name: str, counter: Counter[str]) -> dict[str, NDArray[Any]]:
    kinds = sorted(counter)
    return {
        f"{name}_kinds": np.array(kinds, str),
        f"{name}_counts": np.array([counter[kind] for kind in kinds], np.int64),
    }


def _counter(arrays: Mapping[str, NDArray[Any]], name: str) -> Counter[str]:
    return Counter(dict(zip(arrays[f"{name}_kinds"].tolist(), arrays[f"{name}_counts"].tolist(), strict=True)))


def refused_rows(refused: Sequence[Refused]) -> list[tuple[str, str, str]]:
    return [(entry.kind, entry.token, entry.detail) for entry in refused]
