"""Reads scenes of ``vector_map/scene-….json``: the true polylines of a place and the ego's track through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from winnow.errors import DataError
from winnow.families.maps.city_map import CityMap, line_of, polygon_of
from winnow.families.maps.frame import FARTHEST_M, Array
from winnow.reading import as_float, read_json

DIVIDER_LAYERS = ("lane_divider", "road_divider")
BOUNDARY_LAYER = "drivable_area_boundary"


@dataclass(frozen=True, eq=False)
class TrackedScene:
    """``xy`` (N, 2) and ``yaw`` (N,) are the ego's, ``step_seconds`` apart, on the map of ``city``; ``lines`` holds that map's
    lines by layer."""

    name: str
    city: str
    xy: Array
    yaw: Array
    step_seconds: float
    lines: Mapping[str, Sequence[Array]]

    @cached_property
    def city_map(self) -> CityMap:
        return _city_map(self.lines)

    def every(self, seconds: float) -> list[int]:
        """Return the poses that begin a whole span of ``seconds``."""
        span = max(1, round(seconds / self.step_seconds))
        return list(range(0, len(self.xy) - span + 1, span))


def read_scene(path: Path) -> TrackedScene:
    """Return a scene. Raises DataError naming the file, and in it the feature, for what is no such file."""
    content = read_json(path, "a scene of vector_map", DataError)

    def refuse(words: str) -> DataError:
        return DataError(f"{path} can't be read as a scene of vector_map: {words}")

    if not isinstance(content, dict) or not isinstance(content.get("ego"), dict):
        raise refuse("it has no object ego")
    name, city, step = content.get("scene"), content.get("location"), as_float(content.get("sample_rate"))
    if not isinstance(name, str) or not isinstance(city, str) or not 0 < step < 60:
        raise refuse(f"scene={name!r:.40}, location={city!r:.40}, sample_rate={content.get('sample_rate')!r:.40}")
    xy, yaw = _array(content["ego"].get("xy")), _array(content["ego"].get("heading"))
    if yaw.ndim != 1 or xy.shape != (len(yaw), 2):
        raise refuse("ego.xy and ego.heading are no equally long lists of x, y and of angles")
    features = content.get("map_features")
    if not isinstance(features, list) or not all(isinstance(feature, dict) for feature in features):
        raise refuse("it has no list map_features of objects")
    lines: dict[str, list[Array]] = {layer: [] for layer in (*DIVIDER_LAYERS, BOUNDARY_LAYER)}
    for number, feature in enumerate(features):
        layer = feature.get("nuscenes_layer")
        if isinstance(layer, str) and layer in lines:
            points = _array(feature.get("polyline"))
            if points.ndim != 2 or points.shape[1] != 2:
                raise refuse(f"map_features[{number}] ({layer}) has no polyline of x, y")
            lines[layer].append(points)
    return TrackedScene(name, city, xy, yaw, step, lines)


def _city_map(lines: Mapping[str, Sequence[Array]]) -> CityMap:
    repairs: Counter[str] = Counter()
    dividers = [line_of(points, repairs, layer) for layer in DIVIDER_LAYERS for points in lines[layer]]
    rings = [polygon_of(points, [], repairs, BOUNDARY_LAYER) for points in lines[BOUNDARY_LAYER]]
    roads = roads_of([ring for ring in rings if ring is not None])
    return CityMap([line for line in dividers if line is not None], [], roads, repairs)


def roads_of(rings: list[Polygon | MultiPolygon]) -> list[Polygon | MultiPolygon]:
    """Return polygons with holes from their rings, which don't say what they are: one that lies in an odd number of others is a
    hole."""
    surrounding: list[list[int]] = [[] for _ in rings]
    for inner, outer in shapely.STRtree(rings).query(rings, predicate="within").T.tolist():
        if inner != outer:
            surrounding[inner].append(outer)
    holes = {number for number, others in enumerate(surrounding) if len(others) % 2}
    roads = []
    for number, ring in enumerate(rings):
        if number not in holes:
            depth = len(surrounding[number]) + 1
            own = [rings[hole] for hole in holes if number in surrounding[hole] and len(surrounding[hole]) == depth]
            roads.append(ring.difference(shapely.union_all(own)) if own else ring)
    return roads


def _array(values: Any) -> Array:
    """Return float64 values, an empty array for anything else and where one is beyond ``FARTHEST_M``."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.zeros(0)
    return array if (np.abs(array) <= FARTHEST_M).all() else np.zeros(0)
