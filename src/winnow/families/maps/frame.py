"""The one coordinate frame of maps: its axes, its region, and how points get into it and from it into a camera's image.

x to the right, y forward, z up, in metres, as MapTR has it; a flip negates x. ``lidar`` is the frame of the lidar itself, whose
axes are those already. ``ego`` has the same axes at the ego origin, which lies on the ground. All transforms are 4×4 float64 and
named FROM_to_TO. Pixels are continuous: x to the right, y down, the pixel in row i, column j covers [j, j+1] × [i, i+1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MapFrame = Literal["lidar", "ego"]

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
"""The six cameras in the order in which they travel; with a flip each takes the place of ``MIRRORED_CAMERAS``."""
MIRRORED_CAMERAS = (0, 2, 1, 3, 5, 4)
NUM_CAMERAS = len(CAMERAS)

FARTHEST_M = 1e7
"""No number of a file that is a length in metres, or a focal length, is larger."""
MIN_DEPTH_M = 0.1
"""What is nearer to a camera, or behind it, has no place in its image."""
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
_EGO_AXES = np.array([[0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Region:
    """The rectangle around the origin in which a map is known: ``width`` m along x, ``length`` m along y."""

    width: float = 30.0
    length: float = 60.0

    def bounds(self, margin: float = 0.0) -> tuple[float, float, float, float]:
        """Return (least x, least y, greatest x, greatest y), ``margin`` m further out on each side."""
        x, y = self.width / 2 + margin, self.length / 2 + margin
        return -x, -y, x, y


def rotation_of(quaternion: Array) -> Array:
    """Return the (3, 3) rotation of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def rigid(rotation: Array, translation: Array) -> Array:
    """Return the 4×4 transform p → ``rotation`` p + ``translation``."""
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, translation
    return transform


def inverse(transform: Array) -> Array:
    """Return the inverse of a rigid transform (rotation, maybe mirrored, and translation)."""
    rotation = transform[:3, :3].T
    return rigid(rotation, -rotation @ transform[:3, 3])


def apply(transform: Array, points: Array) -> Array:
    """Return (N, 3) points transformed."""
    return np.asarray(points @ transform[:3, :3].T + transform[:3, 3])


def yaw_of(transform: Array) -> float:
    """Return the angle in radians from the target's x axis to the source's, seen from above."""
    return float(np.arctan2(transform[1, 0], transform[0, 0]))


def frame_to_ego_of(map_frame: MapFrame, lidar_to_ego: Array) -> Array:
    """Return the transform from the frame of that name to the ego frame (x forward, y left, origin on the ground)."""
    return lidar_to_ego if map_frame == "lidar" else _EGO_AXES


def ego_to_camera_of(camera_to_ego: Array, ego_to_global_then: Array, ego_to_global: Array) -> Array:
    """Return the transform from the ego frame at the lidar's time, ``ego_to_global``, to a camera that took its image at another
    time, when the ego was at ``ego_to_global_then``: camera → its own ego → global → ego, inverted."""
    return inverse(inverse(ego_to_global) @ ego_to_global_then @ camera_to_ego)


def ground_of(frame_to_ego: Array) -> Array:
    """Return (a, b, c) of the ground z = a x + b y + c in the frame: the ego frame's plane z = 0."""
    a, b, c, d = frame_to_ego[2]
    return np.array([-a / c, -b / c, -d / c])


def on_ground(points: Array, ground: Array) -> Array:
    """Return (N, 3) points on the ground above or below (N, 2) points."""
    return np.column_stack([points, points @ ground[:2] + ground[2]])


def global_to_frame(points: Array, ego_xy: Array, ego_yaw: float, frame_to_ego: Array) -> Array:
    """Return (N, 2) points of a city's map, which has no heights, in the frame: laid on the ground of the ego frame.

    The ego pose counts as level: nuScenes gives roll and pitch, but the road ahead follows the car's own ground plane (on the
    keyframe of scene-0061 within 0.003 of slope), not that of the map.
    """
    cos, sin = np.cos(ego_yaw), np.sin(ego_yaw)
    moved = points - ego_xy
    in_ego = np.column_stack([moved @ (cos, sin), moved @ (-sin, cos), np.zeros(len(points))])
    return apply(inverse(frame_to_ego), in_ego)[:, :2]


def frame_to_global(points: Array, ego_xy: Array, ego_yaw: float, frame_to_ego: Array) -> Array:
    """Return (N, 2) points on the ground of the frame on a city's map: what ``global_to_frame`` undoes."""
    x, y = apply(frame_to_ego, on_ground(points, ground_of(frame_to_ego)))[:, :2].T
    cos, sin = np.cos(ego_yaw), np.sin(ego_yaw)
    return np.column_stack([cos * x - sin * y, sin * x + cos * y]) + ego_xy


def project(points: Array, frame_to_camera: Array, intrinsics: Array) -> tuple[Array, Array]:
    """Return the (N, 2) pixels of (N, 3) points, NaN where a point is not in front of the camera, and their depth (N,) in m."""
    in_camera = apply(frame_to_camera, points)
    depth = in_camera[:, 2]
    is_seen = depth >= MIN_DEPTH_M
    pixels = np.full((len(points), 2), np.nan)
    pixels[is_seen] = (in_camera[is_seen] / depth[is_seen, None]) @ intrinsics[:2].T
    return pixels, depth


def ground_at(pixels: Array, ground: Array, frame_to_camera: Array, intrinsics: Array) -> Array:
    """Return the (N, 2) points of the ground that (N, 2) pixels show; NaN where they show the sky."""
    camera_to_frame = inverse(frame_to_camera)
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(intrinsics).T @ camera_to_frame[:3, :3].T
    origin = camera_to_frame[:3, 3]
    falls = rays[:, 2] - rays[:, :2] @ ground[:2]
    height = ground[:2] @ origin[:2] + ground[2] - origin[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = height / falls
    points = np.full((len(pixels), 2), np.nan)
    is_seen = np.isfinite(depth) & (depth >= MIN_DEPTH_M)
    points[is_seen] = origin[:2] + depth[is_seen, None] * rays[is_seen, :2]
    return points
