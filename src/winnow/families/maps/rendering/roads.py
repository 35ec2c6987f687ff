"""Random local maps: a bent road with lanes, maybe a side road, crossings and an island, in the map's frame.

Needs shapely: import it where ``extra.require_extra`` has been called.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import substring

from winnow.families.maps.city_map import CityMap, parts_of

_REACH_M = 100.0
_STEP_M = 4.0


def random_roads(rng: np.random.Generator) -> CityMap:
    """Return a map around the origin, where the car drives along y."""
    lane = rng.uniform(3.0, 3.8)
    num_lanes = int(rng.integers(2, 5))
    half = lane * num_lanes / 2
    own_lane = (int(rng.integers(num_lanes // 2, num_lanes)) + 0.5) * lane - half
    centre = _bent(rng.uniform(-0.012, 0.012), rng.uniform(-0.12, 0.12), -own_lane + rng.normal(0, 0.3))
    road = centre.buffer(half, cap_style="flat")
    roads, around = [road], None
    crossings: list[BaseGeometry] = []
    dividers: list[BaseGeometry] = [centre.offset_curve(half - lane * number) for number in range(1, num_lanes)]
    if rng.random() < 0.65:
        at = _REACH_M + rng.uniform(-24, 24)
        side, side_half = _side_road(centre, at, rng)
        roads.append(side.buffer(side_half, cap_style="flat"))
        around = roads[1].intersection(road).buffer(rng.uniform(1.0, 3.0))
        dividers.append(side)
        places = [at + away * (side_half + rng.uniform(4, 7)) for away in (-1, 1) if rng.random() < 0.6]
        crossings += [_across(centre, place, half, rng) for place in places]
    elif rng.random() < 0.4:
        crossings.append(_across(centre, _REACH_M + rng.uniform(-25, 25), half, rng))
    if rng.random() < 0.3:
        begin = _REACH_M + rng.uniform(-28, 20)
        island = substring(centre, begin, begin + rng.uniform(4, 9)).buffer(rng.uniform(0.5, 0.9))
        roads = [part.difference(island) for part in roads]
    gaps = [gap for gap in (around, *crossings) if gap is not None]
    for gap in gaps:
        dividers = [divider.difference(gap) for divider in dividers]
    lines = [
        part for divider in dividers for part in parts_of(divider) if isinstance(part, LineString) and part.length > 1
    ]
    return CityMap(
        lines,
        [Polygon(crossing) for crossing in crossings],
        [part for road in roads for part in parts_of(road)],
        Counter(),
    )


def _bent(curvature: float, heading: float, offset: float) -> LineString:
    """Return a line along y that is bent evenly, ``offset`` m to the right of the origin there."""
    along = np.arange(-_REACH_M, _REACH_M + _STEP_M, _STEP_M)
    angle = heading + curvature * along
    steps = np.column_stack([np.sin(angle), np.cos(angle)]) * _STEP_M
    points = np.cumsum(steps, axis=0)
    return LineString(points - points[len(along) // 2] + (offset, 0.0))


def _side_road(centre: LineString, at: float, rng: np.random.Generator) -> tuple[LineString, float]:
    """Return the middle of a road that meets ``centre`` at ``at`` m along it, from one side or both, and half its width."""
    here, ahead = (np.array(centre.interpolate(place).coords[0]) for place in (at, at + 1.0))
    direction = np.arctan2(*(ahead - here)) + np.pi / 2 + rng.uniform(-0.3, 0.3)
    step = np.array([np.sin(direction), np.cos(direction)]) * _REACH_M
    ends = [(here, here + step), (here - step, here), (here - step, here + step)][int(rng.integers(3))]
    return LineString(ends), rng.uniform(3.2, 6.5)


def _across(centre: LineString, at: float, half: float, rng: np.random.Generator) -> BaseGeometry:
    """Return a pedestrian crossing over the whole road."""
    width = rng.uniform(2.5, 4.0)
    return substring(centre, at, at + width).buffer(half, cap_style="flat").simplify(0.05)
