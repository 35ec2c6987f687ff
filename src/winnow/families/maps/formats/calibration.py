"""Numbers of calibrations as other people's files hold them, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from winnow.families.maps.frame import FARTHEST_M, Array, rigid, rotation_of

_OFF_UNIT = 1e-3
"""How far a rotation may be from one."""


class CalibrationError(ValueError):
    """Numbers that are no pose or no intrinsics; says why."""


def numbers(value: Any, shape: tuple[int, ...], name: str) -> Array:
    """Return an array of float64, none of them beyond ``FARTHEST_M``. Raises CalibrationError."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.shape != shape or not (np.abs(array) <= FARTHEST_M).all():
        raise CalibrationError(f"{name}={value!r:.80} is no array of {' × '.join(map(str, shape))} numbers")
    return array


def pose_of(rotation: Any, translation: Any) -> Array:
    """Return the 4×4 transform of a quaternion (w, x, y, z) and a translation in metres. Raises CalibrationError."""
    quaternion = numbers(rotation, (4,), "rotation")
    length = float(np.linalg.norm(quaternion))
    if abs(length - 1) > _OFF_UNIT:
        raise CalibrationError(f"rotation={rotation!r:.80} has length {length:.4g}, and a quaternion's is 1")
    return rigid(rotation_of(quaternion / length), numbers(translation, (3,), "translation"))


def transform_of(matrix: Any, name: str) -> Array:
    """Return a rigid 4×4 transform: the nearest to what a file holds in float32. Raises CalibrationError."""
    transform = numbers(matrix, (4, 4), name)
    rotation = transform[:3, :3]
    off = max(np.abs(rotation @ rotation.T - np.eye(3)).max(), np.abs(transform[3] - (0, 0, 0, 1)).max())
    if off > _OFF_UNIT or np.linalg.det(rotation) < 0:
        raise CalibrationError(f"{name}={matrix!r:.80} is no rotation and translation")
    left, _, right = np.linalg.svd(rotation)
    return rigid(left @ right, transform[:3, 3])


def intrinsics_of(value: Any, width: int, height: int) -> Array:
    """Return (3, 3) intrinsics of a pinhole camera whose optical centre lies in its image. Raises CalibrationError."""
    matrix = numbers(value, (3, 3), "camera_intrinsic")
    is_pinhole = matrix[0, 0] > 0 and matrix[1, 1] > 0 and np.array_equal(matrix[2], (0, 0, 1)) and matrix[1, 0] == 0
    if not is_pinhole or not (0 < matrix[0, 2] < width and 0 < matrix[1, 2] < height):
        raise CalibrationError(f"camera_intrinsic={value!r:.120} is none of a camera of {width}×{height} px")
    return matrix
