"""A keyframe: one moment of a drive with its six images, where the car was, and how its cameras stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from winnow.families.maps.frame import NUM_CAMERAS, Array, MapFrame, frame_to_ego_of


class Camera(NamedTuple):
    """One image: its file below the data's root, its size in pixels, ``intrinsics`` (3, 3) for that size, and ``ego_to_camera``
    (4, 4) from the ego frame at the *lidar's* time."""

    path: str
    width: int
    height: int
    intrinsics: Array
    ego_to_camera: Array


@dataclass(frozen=True, eq=False)
class Keyframe:
    """``cameras`` in the order of ``frame.CAMERAS``; ``xy`` and ``yaw`` are the ego's on the map of ``city``."""

    token: str
    scene: str
    city: str
    xy: Array
    yaw: float
    lidar_to_ego: Array
    cameras: tuple[Camera, ...]

    def __post_init__(self) -> None:
        if len(self.cameras) != NUM_CAMERAS:
            raise ValueError(f"a keyframe has {NUM_CAMERAS} cameras, got {len(self.cameras)}")

    def frame_to_ego(self, map_frame: MapFrame) -> Array:
        return frame_to_ego_of(map_frame, self.lidar_to_ego)

    def frame_to_camera(self, map_frame: MapFrame) -> Array:
        """Return (6, 4, 4)."""
        frame_to_ego = self.frame_to_ego(map_frame)
        return np.stack([camera.ego_to_camera @ frame_to_ego for camera in self.cameras])


class Refused(NamedTuple):
    """A sample that can't be used, and why."""

    kind: str
    token: str
    detail: str
