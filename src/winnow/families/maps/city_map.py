"""A city's map as geometries, and what of it lies in the region around a pose: the ground truth, by MapTR's recipe.

Needs shapely: import it where ``extra.require_extra`` has been called.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from shapely import STRtree
from shapely.geometry import LineString, MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from winnow.families.maps.frame import Array, Region, frame_to_global, global_to_frame
from winnow.families.maps.lines import CLASSES, MapLines
from winnow.families.maps.rendering.drawing import Drawing

EDGE_M = 0.2
"""Boundaries are cut so much inside of the region's edge and crossings so much outside of it: no edge becomes a boundary, and
the ring of a crossing stays closed."""
_GRID_M = 1e-4
"""Polygons whose edges are nearer than this are joined without a slit between them."""
DIVIDER, CROSSING, BOUNDARY = (CLASSES.index(name) for name in ("divider", "ped_crossing", "boundary"))


@dataclass(frozen=True)
class Pose:
    """Where the frame lies on a city's map: the ego's x, y and yaw there, and the frame relative to the ego."""

    xy: Array
    yaw: float
    frame_to_ego: Array


@dataclass(frozen=True, eq=False)
class CityMap:
    """``dividers`` are lines, ``crossings`` and ``roads`` polygons, in the coordinates of the city's map; the boundaries are the
    edges of all roads together. ``repairs`` counts what of the file could not be taken as it is."""

    dividers: Sequence[LineString]
    crossings: Sequence[Polygon]
    roads: Sequence[Polygon | MultiPolygon]
    repairs: Counter[str]

    @cached_property
    def _trees(self) -> tuple[STRtree, ...]:
        return tuple(STRtree(list(part)) for part in (self.dividers, self.crossings, self.roads))

    def lines_at(self, pose: Pose, region: Region) -> tuple[MapLines, Counter[str]]:
        """Return the lines in the region around a pose, by class, with all their points; and what was dropped, by kind."""
        dropped: Counter[str] = Counter()
        dividers, (crossings, roads) = self._near_lines(pose, region), self._near_polygons(pose, region)
        parts = [
            _cut_lines(dividers, region), _cut_rings(crossings, region, EDGE_M), _cut_rings(roads, region, -EDGE_M),
        ]  # fmt: skip
        lines: list[Array] = []
        labels: list[int] = []
        for label, pieces in zip((DIVIDER, CROSSING, BOUNDARY), parts, strict=True):
            for piece in pieces:
                if not isinstance(piece, LineString) or piece.length == 0:
                    dropped[f"{CLASSES[label]} that only touches the region"] += 1
                    continue
                lines.append(np.asarray(piece.coords)[:, :2])
                labels.append(label)
        return MapLines.of(lines, labels), dropped

    def drawing_at(self, pose: Pose, region: Region) -> Drawing:
        """Return what a renderer paints of the region around a pose."""
        dividers, (crossings, roads) = self._near_lines(pose, region), self._near_polygons(pose, region)
        lines = [
            np.asarray(line.coords)
            for divider in dividers
            for line in parts_of(divider)
            if isinstance(line, LineString)
        ]
        return Drawing(_rings_of(roads), _rings_of(crossings), lines)

    def _near_lines(self, pose: Pose, region: Region) -> list[BaseGeometry]:
        """Return the dividers that may reach the region, cut to a little more than it, in the frame."""
        patch = _patch(pose, region)
        return [_in_frame(self.dividers[row].intersection(patch), pose) for row in _touching(self._trees[0], patch)]

    def _near_polygons(self, pose: Pose, region: Region) -> tuple[BaseGeometry, BaseGeometry]:
        """Return all crossings together and all roads together, cut to a little more than the region, in the frame.

        Where two share an edge, a cut gives each an end of its own there; on a grid the rounding error between the two leaves no
        slit in the road, which would be a boundary.
        """
        patch = _patch(pose, region)
        near = [[part[row].intersection(patch) for row in _touching(tree, patch)]
                for part, tree in zip((self.crossings, self.roads), self._trees[1:], strict=True)]  # fmt: skip
        crossings, roads = (_in_frame(shapely.union_all(part, grid_size=_GRID_M), pose) for part in near)
        return crossings, roads


def _patch(pose: Pose, region: Region) -> Polygon:
    """Return a little more than the region on the city's map."""
    low_x, low_y, high_x, high_y = region.bounds(1.0)
    corners = np.array([[low_x, low_y], [high_x, low_y], [high_x, high_y], [low_x, high_y]])
    return Polygon(frame_to_global(corners, pose.xy, pose.yaw, pose.frame_to_ego))


def _touching(tree: STRtree, patch: Polygon) -> list[int]:
    return sorted(tree.query(patch, predicate="intersects").tolist())


def _in_frame(geometry: BaseGeometry, pose: Pose) -> BaseGeometry:
    def moved(points: Array) -> Array:
        return global_to_frame(points, pose.xy, pose.yaw, pose.frame_to_ego)

    return shapely.transform(geometry, moved)


def _cut_lines(lines: Sequence[BaseGeometry], region: Region) -> Iterator[BaseGeometry]:
    """Yield the pieces of each line inside of the region; several of one are joined where their ends meet."""
    edge = box(*region.bounds())
    for line in lines:
        yield from _pieces(line.intersection(edge))


def _cut_rings(polygons: BaseGeometry, region: Region, margin: float) -> Iterator[BaseGeometry]:
    """Yield the edges, outer and inner, of polygons: cut to the region, and then to ``margin`` around it."""
    edge = box(*region.bounds(margin))
    for polygon in parts_of(polygons.intersection(box(*region.bounds()))):
        if isinstance(polygon, Polygon):
            for ring in (polygon.exterior, *polygon.interiors):
                yield from _pieces(ring.intersection(edge))


def _pieces(geometry: BaseGeometry) -> list[BaseGeometry]:
    lines = [part for part in parts_of(geometry) if part.geom_type in ("LineString", "LinearRing")]
    rest = [part for part in parts_of(geometry) if part.geom_type not in ("LineString", "LinearRing")]
    return [*parts_of(shapely.line_merge(shapely.multilinestrings(lines))), *rest] if lines else rest


def parts_of(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Return the simple geometries in one that may be a collection, none of an empty one."""
    return [part for part in shapely.get_parts(geometry).tolist() if not part.is_empty]


def _rings_of(polygons: BaseGeometry) -> list[tuple[Array, list[Array]]]:
    """Return (outer ring, rings of holes) of each polygon."""
    return [
        (np.asarray(part.exterior.coords), [np.asarray(hole.coords) for hole in part.interiors])
        for part in parts_of(polygons)
        if isinstance(part, Polygon)
    ]


def line_of(points: Array, repairs: Counter[str], kind: str) -> LineString | None:
    """Return a line; None, counted in ``repairs``, where it has fewer than two different points."""
    if len(points) < 2 or np.ptp(points, axis=0).max() == 0:
        repairs[f"{kind} without length"] += 1
        return None
    return LineString(points)


def polygon_of(
    exterior: Array, holes: Sequence[Array], repairs: Counter[str], kind: str
) -> Polygon | MultiPolygon | None:
    """Return a valid polygon; None where it encloses nothing, and a repaired one where it crosses itself, both counted."""
    if len(exterior) < 3:
        repairs[f"{kind} without area"] += 1
        return None
    polygon = Polygon(exterior, [hole for hole in holes if len(hole) >= 3])
    if polygon.is_valid and polygon.area > 0:
        return polygon
    mended = polygon.buffer(0)
    if mended.is_empty or not math.isfinite(mended.area) or mended.area == 0:
        repairs[f"{kind} without area"] += 1
        return None
    repairs[f"{kind} that crosses itself"] += 1
    return mended
