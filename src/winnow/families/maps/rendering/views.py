"""What six pinhole cameras see of a painted ground: where each of their pixels looks is worked out once per calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from winnow.families.maps.frame import CAMERAS, NUM_CAMERAS, Array, ground_at, inverse, rigid
from winnow.families.maps.keyframe import Camera
from winnow.families.maps.rendering.drawing import place_of
from winnow.families.maps.samples import scaled_intrinsics

_FINER = 2
"""Rays per pixel and direction, whose colours are averaged."""
WIDTH, HEIGHT = 1600, 900
# Yaw in degrees to the left, place on the car in metres (forward, left, up), focal length in px: about nuScenes' own.
_RIG = {
    "CAM_FRONT": (0.0, (1.70, 0.02, 1.51), 1260.0), "CAM_FRONT_RIGHT": (-56.0, (1.55, -0.49, 1.50), 1260.0),
    "CAM_FRONT_LEFT": (56.0, (1.52, 0.49, 1.51), 1260.0), "CAM_BACK": (180.0, (0.03, 0.00, 1.57), 810.0),
    "CAM_BACK_LEFT": (109.0, (1.04, 0.48, 1.56), 1260.0), "CAM_BACK_RIGHT": (-109.0, (1.01, -0.48, 1.57), 1260.0),
}  # fmt: skip
LIDAR_TO_EGO = rigid(np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([0.944, 0.0, 1.840]))


def nominal_cameras() -> tuple[Camera, ...]:
    """Return six cameras that look around a car, in the order of ``frame.CAMERAS``."""
    cameras = []
    for name in CAMERAS:
        degrees, place, focal = _RIG[name]
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        camera_to_ego = rigid(np.array([[sin, 0.0, cos], [-cos, 0.0, sin], [0.0, -1.0, 0.0]]), np.array(place))
        intrinsics = np.array([[focal, 0.0, WIDTH / 2], [0.0, focal, HEIGHT / 2 + 40], [0.0, 0.0, 1.0]])
        cameras.append(Camera("", WIDTH, HEIGHT, intrinsics, inverse(camera_to_ego)))
    return tuple(cameras)


class Views:
    """The images of ``cameras`` at ``width`` × ``height`` px; ``intrinsics`` (6, 3, 3) are to those pixels, ``frame_to_camera``
    (6, 4, 4) and ``ground`` as in ``MapBatch``."""

    def __init__(self, cameras: Sequence[Camera], frame_to_ego: Array, ground: Array, width: int, height: int) -> None:
        self.frame_to_camera = np.stack([camera.ego_to_camera @ frame_to_ego for camera in cameras])
        self.intrinsics = np.stack(
            [scaled_intrinsics(camera.intrinsics, camera.width, camera.height, width, height) for camera in cameras]
        )
        self.ground = ground
        self._shape = (NUM_CAMERAS, height, _FINER, width, _FINER, 3)
        x, y = np.meshgrid(np.arange(width * _FINER) + 0.5, np.arange(height * _FINER) + 0.5)
        pixels = np.column_stack([x.ravel(), y.ravel()]) / _FINER
        self._places = np.concatenate([self._places_of(pixels, number, width) for number in range(NUM_CAMERAS)])

    def render(self, painted: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (6, H, W, 3) uint8."""
        rays = np.take(painted, self._places, axis=0).reshape(self._shape)
        total = np.full((*self._shape[:2], self._shape[3], 3), _FINER * _FINER // 2, np.uint16)
        for row in range(_FINER):
            for column in range(_FINER):
                total += rays[:, :, row, :, column]
        return (total // (_FINER * _FINER)).astype(np.uint8)

    def _places_of(self, pixels: Array, camera: int, width: int) -> NDArray[np.int32]:
        points = ground_at(pixels, self.ground, self.frame_to_camera[camera], self.intrinsics[camera])
        grid = points.reshape(-1, width * _FINER, 2)
        with np.errstate(invalid="ignore"):
            steps = [np.linalg.norm(np.gradient(grid, axis=axis), axis=2) for axis in (0, 1)]
            footprint = np.sqrt(steps[0] * steps[1]).ravel()
        return place_of(points, footprint)
