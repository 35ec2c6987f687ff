"""Reads keyframes from the infos of mmdetection3d 1.1 (``nuscenes_infos_….json``), which bring calibration with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.errors import DataError
from winnow.families.maps.formats.calibration import CalibrationError, intrinsics_of, transform_of
from winnow.families.maps.frame import CAMERAS, Array, inverse, yaw_of
from winnow.families.maps.keyframe import Camera, Keyframe, Refused
from winnow.reading import NOT_READ, read_json

SIZE = (1600, 900)
"""Width and height of nuScenes' images: infos don't say them."""


def read_infos(path: Path, city: str, scene: str) -> tuple[list[Keyframe], list[Refused]]:
    """Return the keyframes of a file, all in one scene of one city, which infos don't say; and those that can't be used. Raises
    DataError where it is no such file."""
    keyframes, refused = [], []
    for number, sample in enumerate(read_data_list(path)):
        token = str(sample.get("token", number)) if isinstance(sample, dict) else str(number)
        missing = [name for name in CAMERAS if not _has(sample, name)]
        if missing:
            refused.append(Refused("missing camera", token, f"without {', '.join(missing)}"))
            continue
        try:
            keyframes.append(_keyframe(sample, token, city, scene))
        except CalibrationError as error:
            refused.append(Refused("broken calibration", token, str(error)))
        except NOT_READ as error:
            refused.append(Refused("broken calibration", token, f"{type(error).__name__}: {error}"[:200]))
    return keyframes, refused


def read_data_list(path: Path) -> list[Any]:
    """Return the samples of a file as they stand in it, unchecked. Raises DataError where it is no such file."""
    content = read_json(path, "infos of mmdetection3d", DataError)
    samples = content.get("data_list") if isinstance(content, dict) else None
    if not isinstance(samples, list):
        raise DataError(f"{path} can't be read as infos of mmdetection3d: it has no list data_list")
    return samples


def camera_of(image: Mapping[str, Any], name: str, path: str, size: tuple[int, int], lidar_to_ego: Array) -> Camera:
    """Return the camera of one entry of ``images``, whose image of (width, height) ``size`` lies at ``path``. Raises
    CalibrationError, KeyError."""
    # lidar2cam goes by way of the camera's own ego pose; cam2ego is in that one, and would leave the car's motion out.
    lidar_to_camera = transform_of(image["lidar2cam"], f"{name} lidar2cam")
    return Camera(path, *size, intrinsics_of(image["cam2img"], *size), lidar_to_camera @ inverse(lidar_to_ego))


def _has(sample: Any, camera: str) -> bool:
    images = sample.get("images") if isinstance(sample, dict) else None
    return isinstance(images, dict) and isinstance(images.get(camera), dict)


def _keyframe(sample: dict[str, Any], token: str, city: str, scene: str) -> Keyframe:
    lidar_to_ego = transform_of(sample["lidar_points"]["lidar2ego"], "lidar2ego")
    ego_to_global = transform_of(sample["ego2global"], "ego2global")
    cameras = []
    for name in CAMERAS:
        image = sample["images"][name]
        cameras.append(camera_of(image, name, usual_path(image, name), SIZE, lidar_to_ego))
    return Keyframe(token, scene, city, ego_to_global[:2, 3], yaw_of(ego_to_global), lidar_to_ego, tuple(cameras))


def usual_path(image: Mapping[str, Any], name: str) -> str:
    """Return where nuScenes keeps the image of camera ``name``, below the data's root."""
    return f"samples/{name}/{Path(str(image['img_path'])).name}"
