"""Six images of one moment with their cameras' calibration, as people have them: samples of infos, or of a rig of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from winnow.data.image import read_upright
from winnow.errors import ConfigError, DataError
from winnow.families.maps.formats.calibration import CalibrationError, transform_of
from winnow.families.maps.formats.infos import camera_of, read_data_list, usual_path
from winnow.families.maps.frame import CAMERAS
from winnow.families.maps.keyframe import Keyframe
from winnow.families.maps.rendering.views import LIDAR_TO_EGO, nominal_cameras
from winnow.reading import NOT_READ, reason

_SHAPE = (
    "a sample is {'lidar_points': {'lidar2ego': 4×4}, 'images': {'CAM_FRONT': {'img_path': …, 'cam2img': 3×3, 'lidar2cam': 4×4}, "
    "…}}, as in infos of mmdetection3d 1.1"
)


@dataclass(frozen=True, eq=False)
class Surround:
    """``images`` (H, W, 3) uint8 in the order of ``frame.CAMERAS``, and a keyframe with their calibration; where the car is on a
    map it does not say."""

    keyframe: Keyframe
    images: tuple[NDArray[np.uint8], ...]


def samples_of_infos(paths: Sequence[str | Path], root: str | Path | None = None) -> list[dict[str, Any]]:
    """Return the samples of files of infos, with the places of their images, which lie below ``root``, by default beside each
    file: as ``img_path`` says, or in nuScenes' ``samples/CAM_…``. Raises ConfigError for a folder or a picture, DataError for
    another file that is none of infos."""
    samples = []
    for path in map(Path, paths):
        if path.is_dir() or path.suffix.lower() != ".json":
            raise ConfigError(
                f"{path}: a model of maps looks at six images and their calibration; name files of infos (.json), docs/maps.md"
            )
        below = path.parent if root is None else Path(root)
        for sample in read_data_list(path):
            images = sample.get("images") if isinstance(sample, dict) else None
            if isinstance(images, dict):
                placed = {name: _placed(image, name, below) for name, image in images.items()}
                samples.append({**sample, "images": placed})
            else:
                samples.append(sample if isinstance(sample, dict) else {})
    return samples


def read_surround(source: Any, number: int) -> Surround:
    """Return sample ``number`` of a sequence: a mapping as ``docs/maps.md`` shows it, whose images are files (``img_path``) or
    uint8 arrays (``image``), taken as they are stored: a camera's calibration belongs to those pixels. Raises ConfigError for
    what is no mapping, DataError for what lacks something or can't be read."""
    if not isinstance(source, Mapping):
        raise ConfigError(f"sample {number} is {source!r:.100}; {_SHAPE}")
    name = str(source.get("token", number))
    try:
        cameras = source["images"]
        missing = [camera for camera in CAMERAS if not isinstance(cameras.get(camera), Mapping)]
        if missing:
            raise DataError(f"sample {name} is without {', '.join(missing)}")
        lidar_to_ego = transform_of(source["lidar_points"]["lidar2ego"], "lidar2ego")
        images = [_pixels(cameras[camera], name, camera) for camera in CAMERAS]
        calibrated = tuple(
            camera_of(cameras[camera], camera, "", (pixels.shape[1], pixels.shape[0]), lidar_to_ego)
            for camera, pixels in zip(CAMERAS, images, strict=True)
        )
    except CalibrationError as error:
        raise DataError(f"sample {name}: {error}") from error
    except NOT_READ as error:
        raise DataError(f"sample {name} can't be read ({reason(error)}); {_SHAPE}") from error
    return Surround(Keyframe(name, "", "", np.zeros(2), 0.0, lidar_to_ego, calibrated), tuple(images))


def surround_of(picture: NDArray[np.uint8]) -> Surround:
    """Return a sample whose nominal cameras all see ``picture`` (H, W, 3) uint8, stretched to the shape of their images."""
    cameras = nominal_cameras()
    size = cameras[0].width, cameras[0].height
    pixels = np.asarray(Image.fromarray(picture).resize(size))
    return Surround(Keyframe("nominal", "", "", np.zeros(2), 0.0, LIDAR_TO_EGO, cameras), (pixels,) * len(cameras))


def _placed(image: Any, name: str, below: Path) -> Any:
    if not isinstance(image, dict) or not isinstance(image.get("img_path"), str):
        return image
    asked, usual = below / image["img_path"], below / usual_path(image, name)
    return {**image, "img_path": usual if usual.exists() and not asked.exists() else asked}


def _pixels(image: Mapping[str, Any], name: str, camera: str) -> NDArray[np.uint8]:
    if "image" not in image:
        try:
            return read_upright(Path(image["img_path"]), turn=False)
        except DataError as error:
            raise DataError(f"sample {name}: {error}") from error
    pixels = np.asarray(image["image"])
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(f"sample {name}: {camera} holds {pixels.dtype} {pixels.shape}; allowed: (H, W, 3) uint8")
    return pixels
