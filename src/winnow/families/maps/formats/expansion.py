"""Reads the map expansion of nuScenes (``maps/expansion/CITY.json``, version 1.3 or later) into geometries.

What is needed of it are the layers below and the nodes, lines and polygons that they name by token.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import MultiPolygon, Polygon

from winnow.errors import DataError
from winnow.families.maps.city_map import CityMap, line_of, polygon_of
from winnow.families.maps.frame import FARTHEST_M, Array
from winnow.reading import as_float, read_json, reason

OLDEST = 1.3
DIVIDER_LAYERS = ("road_divider", "lane_divider")
CROSSING_LAYER = "ped_crossing"
ROAD_LAYERS = ("road_segment", "lane", "drivable_area")
"""Layers of polygons whose common edges may be the boundaries; MapTR takes the first two."""


def path_of(root: Path, city: str) -> Path:
    """Return where a city's map lies below nuScenes' root folder."""
    return root / "maps" / "expansion" / f"{city}.json"


def checksum_of(path: Path) -> str:
    """Return a checksum of a map file. Raises DataError where it can't be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"the map {path} can't be read: {error.strerror or error}") from error
    except ValueError as error:  # a name with a character that no file's can have
        raise DataError(f"the map {path} can't be read: {reason(error)}") from error


def read_expansion(path: Path, boundary_layers: Sequence[str]) -> CityMap:
    """Return a city's map, its roads those of ``boundary_layers``. Raises DataError naming the file, and in it the layer and the
    token, for what is no map of this schema."""
    content = read_json(path, "a map expansion of nuScenes", DataError)
    reader = _Reader(path, content)
    repairs: Counter[str] = Counter()
    dividers = [
        line_of(reader.line(layer, record), repairs, layer)
        for layer in DIVIDER_LAYERS
        for record in reader.records(layer)
    ]
    crossings, roads = (
        [
            polygon_of(*reader.polygon(layer, token), repairs, layer)
            for layer in layers
            for record in reader.records(layer)
            for token in reader.polygon_tokens(layer, record)
        ]
        for layers in ([CROSSING_LAYER], boundary_layers)
    )
    lines, areas = [line for line in dividers if line is not None], [_present(part) for part in (crossings, roads)]
    return CityMap(lines, areas[0], areas[1], repairs)


def _present(polygons: Sequence[Polygon | MultiPolygon | None]) -> list[Polygon | MultiPolygon]:
    return [polygon for polygon in polygons if polygon is not None]


class _Reader:
    """Resolves tokens of one file."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        if not isinstance(content, dict):
            raise self._error(f"it is a {type(content).__name__}, and should be an object of layers")
        version = content.get("version")
        if not as_float(version) >= OLDEST:
            raise self._error(f"its version is {version!r:.40}, and {OLDEST} or later is needed")
        self._content = content
        self._nodes = {token: self._point(record) for token, record in self._by_token("node").items()}
        self._lines, self._polygons = self._by_token("line"), self._by_token("polygon")

    def records(self, layer: str) -> list[dict[str, Any]]:
        return self._records(layer)

    def line(self, layer: str, record: dict[str, Any]) -> Array:
        """Return the points of a record of a layer of lines."""
        line = self._named(self._lines, record.get("line_token"), layer, "line")
        return self._points(line.get("node_tokens"), f"line {line['token']}")

    def polygon_tokens(self, layer: str, record: dict[str, Any]) -> list[Any]:
        """Return the tokens of a record's polygons: drivable areas have several."""
        if layer != "drivable_area":
            return [record.get("polygon_token")]
        tokens = record.get("polygon_tokens")
        if not isinstance(tokens, list):
            raise self._error(f"{layer} {record['token']} has no list polygon_tokens")
        return tokens

    def polygon(self, layer: str, token: Any) -> tuple[Array, list[Array]]:
        """Return the outer points of a polygon and those of its holes."""
        polygon = self._named(self._polygons, token, layer, "polygon")
        name = f"polygon {polygon['token']}"
        holes = polygon.get("holes", [])
        if not isinstance(holes, list) or not all(isinstance(hole, dict) for hole in holes):
            raise self._error(f"the holes of {name} are no list of objects")
        outer = self._points(polygon.get("exterior_node_tokens"), name)
        return outer, [self._points(hole.get("node_tokens"), f"a hole of {name}") for hole in holes]

    def _records(self, layer: str) -> list[dict[str, Any]]:
        records = self._content.get(layer)
        if not isinstance(records, list):
            raise self._error(f"it has no list {layer}")
        for number, record in enumerate(records):
            if not isinstance(record, dict) or not isinstance(record.get("token"), str):
                raise self._error(f"entry {number} of {layer} is no object with a token")
        return records

    def _by_token(self, layer: str) -> dict[str, dict[str, Any]]:
        return {record["token"]: record for record in self._records(layer)}

    def _named(self, records: dict[str, dict[str, Any]], token: Any, layer: str, kind: str) -> dict[str, Any]:
        record = records.get(token) if isinstance(token, str) else None
        if record is None:
            raise self._error(f"{layer} names the {kind} {token!r:.60}, which is not there")
        return record

    def _points(self, tokens: Any, name: str) -> Array:
        if not isinstance(tokens, list):
            raise self._error(f"{name} has no list of node tokens")
        missing = [token for token in tokens if not isinstance(token, str) or token not in self._nodes]
        if missing:
            raise self._error(f"{name} names the node {missing[0]!r:.60}, which is not there")
        return np.array([self._nodes[token] for token in tokens], np.float64).reshape(-1, 2)

    def _point(self, node: dict[str, Any]) -> tuple[float, float]:
        x, y = as_float(node.get("x")), as_float(node.get("y"))
        if not (abs(x) <= FARTHEST_M and abs(y) <= FARTHEST_M):
            raise self._error(f"node {node['token']} lies at x={node.get('x')!r:.40}, y={node.get('y')!r:.40}")
        return x, y

    def _error(self, words: str) -> DataError:
        return DataError(f"{self._path} can't be read as a map expansion of nuScenes: {words}")
