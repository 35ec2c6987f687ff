"""Where map samples come from: image files with converted ground truth, or rendered from geometry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from PIL import Image

from winnow.data.image import read_image
from winnow.data.loader import is_gone
from winnow.data.unreadable import Unreadable
from winnow.errors import DataError
from winnow.families.maps.frame import Array, MapFrame, Region, frame_to_ego_of, frame_to_global, ground_of
from winnow.families.maps.keyframe import Camera, Keyframe
from winnow.families.maps.lines import MapLines
from winnow.families.maps.rendering.drawing import PAINTED, paint
from winnow.families.maps.rendering.views import Views
from winnow.families.maps.samples import RawSample, pixel_size, scaled_intrinsics

if TYPE_CHECKING:
    from winnow.families.maps.city_map import CityMap, Pose

_CACHED_BYTES = 256_000_000
"""Of rendered images that a process keeps: scenes that come again in each epoch are rendered once."""
# Apart from other numbers that are drawn from the same seed.
_COLOURS = 2


class ConvertedSource:
    """Keyframes with their images below ``root``, and their lines; ``origin`` says what names the images."""

    def __init__(
        self, root: Path, samples: Sequence[tuple[Keyframe, MapLines]], map_frame: MapFrame, origin: str
    ) -> None:
        self._root = root
        self._origin = origin
        self._samples = samples
        self._map_frame = map_frame

    def __len__(self) -> int:
        return len(self._samples)

    def image_id(self, place: int) -> int | str:
        return self._samples[place][0].token

    def aspect(self) -> float:
        camera = self._samples[0][0].cameras[0]
        return camera.width / camera.height

    def read(self, place: int, epoch: int, image_size: int) -> RawSample | Unreadable:
        del epoch
        keyframe, lines = self._samples[place]
        width, height = pixel_size(image_size, self.aspect())
        images = []
        for camera in keyframe.cameras:
            image = self._image(camera, width, height)
            if isinstance(image, Unreadable):
                return image._replace(problem=f"sample {keyframe.token} of {self._origin}: {image.problem}")
            images.append(image)
        intrinsics = [scaled_intrinsics(c.intrinsics, c.width, c.height, width, height) for c in keyframe.cameras]
        ground = ground_of(keyframe.frame_to_ego(self._map_frame))
        return RawSample(
            keyframe.token, keyframe.city, np.stack(images), keyframe.frame_to_camera(self._map_frame), np.stack(intrinsics),
            ground, lines,
        )  # fmt: skip

    def _image(self, camera: Camera, width: int, height: int) -> np.ndarray | Unreadable:
        path = self._root / camera.path
        for is_second_try in (False, True):
            try:
                pixels = read_image(path, camera.width, camera.height).permute(1, 2, 0).numpy()
                return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
            except DataError as error:
                if is_gone(path.parent):
                    return Unreadable(str(error), str(path.parent))
                if is_second_try:  # the folder may have come back in between
                    return Unreadable(str(error), None)
        raise AssertionError("both tries return")


class Scene(NamedTuple):
    """What is rendered: a map, made or looked up when it is needed, the pose in it, the lines of the region there where they are
    known already, and the seed of the colours."""

    image_id: str
    city: str
    city_map: Callable[[], CityMap]
    pose: Pose
    lines: MapLines | None
    seed: Sequence[int]


class Scenes(Protocol):
    """Scenes by place and epoch, in any process; those of equal ids are the same."""

    def __len__(self) -> int: ...

    def __call__(self, place: int, epoch: int) -> Scene: ...


class RenderedSource:
    """``scenes`` as seen by ``cameras``, over flat ground; each is rendered once, and kept while there is room."""

    def __init__(self, scenes: Scenes, cameras: Sequence[Camera], frame_to_ego: Array, region: Region) -> None:
        self._scenes = scenes
        self._cameras = cameras
        self._frame_to_ego = frame_to_ego
        self._region = region
        self._views: dict[int, Views] = {}
        self._rendered: OrderedDict[tuple[str, int], RawSample] = OrderedDict()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._scenes)

    def image_id(self, place: int) -> int | str:
        return self._scenes(place, 0).image_id

    def aspect(self) -> float:
        return self._cameras[0].width / self._cameras[0].height

    def read(self, place: int, epoch: int, image_size: int) -> RawSample:
        scene = self._scenes(place, epoch)
        known = self._rendered.get((scene.image_id, image_size))
        if known is None:
            known = self._render(scene, image_size)
            self._keep(known, image_size)
        return known

    def _render(self, scene: Scene, image_size: int) -> RawSample:
        views, city_map, lines = self._views_at(image_size), scene.city_map(), scene.lines
        if lines is None:
            lines, _ = city_map.lines_at(scene.pose, self._region)
        painted = paint(city_map.drawing_at(scene.pose, PAINTED), np.random.default_rng([*scene.seed, _COLOURS]))
        return RawSample(
            scene.image_id,
            scene.city,
            views.render(painted),
            views.frame_to_camera,
            views.intrinsics,
            views.ground,
            lines,
        )

    def _views_at(self, image_size: int) -> Views:
        if image_size not in self._views:
            width, height = pixel_size(image_size, self.aspect())
            self._views[image_size] = Views(
                self._cameras, self._frame_to_ego, ground_of(self._frame_to_ego), width, height
            )
        return self._views[image_size]

    def _keep(self, sample: RawSample, image_size: int) -> None:
        self._rendered[str(sample.image_id), image_size] = sample
        self._num_bytes += sample.images.nbytes
        while self._num_bytes > _CACHED_BYTES:
            _, oldest = self._rendered.popitem(last=False)
            self._num_bytes -= oldest.images.nbytes


def pose_at_origin(map_frame: MapFrame, lidar_to_ego: Array) -> Pose:
    """Return the pose by which a map's own coordinates are those of the frame."""
    from winnow.families.maps.city_map import Pose

    frame_to_ego, yaw = frame_to_ego_of(map_frame, lidar_to_ego), np.pi / 2
    origin = frame_to_global(np.zeros((1, 2)), np.zeros(2), yaw, frame_to_ego)[0]
    return Pose(-origin, yaw, frame_to_ego)
