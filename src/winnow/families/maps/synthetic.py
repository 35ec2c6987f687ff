"""Random local maps by their place: what ``data=map_synthetic`` renders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from winnow.families.maps.frame import MapFrame
from winnow.families.maps.rendering.views import LIDAR_TO_EGO
from winnow.families.maps.sources import Scene, pose_at_origin

if TYPE_CHECKING:
    from winnow.families.maps.city_map import CityMap

CITY = "drawn"


class RandomScenes:
    """A map per place as a function of (``seed``, index), and of the epoch with ``new_in_each_epoch``."""

    VERSION = 1
    """Of the algorithm that draws maps."""

    def __init__(
        self, part: str, map_frame: MapFrame, seed: int, indices: Sequence[int], new_in_each_epoch: bool
    ) -> None:
        self._part = part
        self._pose = pose_at_origin(map_frame, LIDAR_TO_EGO)
        self._seed = seed
        self._indices = indices
        self._new_in_each_epoch = new_in_each_epoch

    def __len__(self) -> int:
        return len(self._indices)

    def __call__(self, place: int, epoch: int) -> Scene:
        index, epoch = self._indices[place], epoch if self._new_in_each_epoch else 0
        # Training and validation maps differ where both seeds are the same.
        seed = [self._seed, epoch, index, ("train", "val").index(self._part)]
        name = f"{self._part}_{index}" + (f"_epoch{epoch}" if epoch else "")
        return Scene(name, CITY, partial(_roads_of, seed), self._pose, None, seed)


def _roads_of(seed: Sequence[int]) -> CityMap:
    from winnow.families.maps.rendering.roads import random_roads

    return random_roads(np.random.default_rng(seed))
