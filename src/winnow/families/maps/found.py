"""What a model of maps finds around a car without a map: six images with calibration as a batch in, polylines in metres out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from winnow.errors import DataError
from winnow.families.maps.batch import MapBatch
from winnow.families.maps.frame import MapFrame, Region, ground_of
from winnow.families.maps.lines import MapLines
from winnow.families.maps.pictures import FRONT, CameraView, draw_found
from winnow.families.maps.predictions import MapPredictions
from winnow.families.maps.samples import Collate, RawSample, pixel_size, scaled_intrinsics
from winnow.families.maps.settings import MapSettings
from winnow.families.maps.surround import Surround
from winnow.settings import build_settings


@dataclass(frozen=True)
class KnownMaps:
    """What a model of maps must know of its data, from the recorded node ``data``: what ``MapData`` says of itself, but for the
    cities, which only an evaluation asks for."""

    classes: Sequence[str]
    map_frame: MapFrame
    region: Region
    num_points: int
    cities: tuple[str, ...] = ()

    @classmethod
    def of(cls, classes: Sequence[str], node: Mapping[str, Any]) -> KnownMaps:
        """Raises ConfigError naming a wrong key."""
        values = {name: node[name] for name in MapSettings.model_fields.keys() & node.keys()}
        settings = build_settings(MapSettings, values, "data")
        return cls(classes, settings.map_frame, settings.area, settings.num_points)


@dataclass(frozen=True)
class SurroundBatch(MapBatch):
    """Samples without truth, their calibration in the frame of that name."""

    map_frame: MapFrame = "lidar"


@dataclass(frozen=True)
class FoundLines:
    """What was found around one car: ``points`` (K, P, 2) float32, x to the right and y forward in metres in the frame of that
    name (``lidar`` or ``ego``), ``scores`` (K,) in descending order, ``labels`` (K,) int64 from 0, and for each line its class's
    name."""

    name: str
    frame: MapFrame
    points: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        lines = zip(self.names, self.scores.tolist(), self.points.tolist(), strict=True)
        return {
            "file_name": self.name,
            "frame": self.frame,
            "lines": [{"class": name, "score": score, "points": points} for name, score, points in lines],
        }

    def draw(self, pixels: Surround, min_score: float) -> Image.Image:
        """Draw the lines of at least ``min_score`` from above and in the front camera."""
        keyframe = pixels.keyframe
        view = CameraView(
            pixels.images[FRONT], keyframe.frame_to_camera(self.frame)[FRONT], keyframe.cameras[FRONT].intrinsics,
            ground_of(keyframe.frame_to_ego(self.frame)),
        )  # fmt: skip
        return draw_found(MapPredictions(self.points, self.scores, self.labels), self.names, view, min_score)


def batch_of_surround(
    samples: Sequence[Surround], map_frame: MapFrame, image_size: int, num_points: int
) -> SurroundBatch:
    """Return samples as evaluation sees them, without truth. Raises DataError for images of two shapes."""
    raw = [_raw(sample, map_frame, image_size) for sample in samples]
    shapes = {one.images.shape[2:0:-1]: str(one.image_id) for one in reversed(raw)}
    if len(shapes) > 1:
        words = ", ".join(f"{width}×{height} px of sample {name}" for (width, height), name in shapes.items())
        raise DataError(f"images of several shapes can't be in one batch: {words}; batch_size=1 takes them one by one")
    batch = Collate(num_points)(raw)
    assert isinstance(batch, MapBatch)
    return SurroundBatch(**{field.name: getattr(batch, field.name) for field in fields(batch)}, map_frame=map_frame)


def _raw(sample: Surround, map_frame: MapFrame, image_size: int) -> RawSample:
    """Return images and calibration at the model's size, as ``ConvertedSource`` does."""
    keyframe, first = sample.keyframe, sample.keyframe.cameras[0]
    width, height = pixel_size(image_size, first.width / first.height)
    images = [
        np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        for pixels in sample.images
    ]
    intrinsics = [scaled_intrinsics(c.intrinsics, c.width, c.height, width, height) for c in keyframe.cameras]
    return RawSample(
        keyframe.token, keyframe.city, np.stack(images), keyframe.frame_to_camera(map_frame), np.stack(intrinsics),
        ground_of(keyframe.frame_to_ego(map_frame)), MapLines.of([], []),
    )  # fmt: skip


def found_lines(
    predictions: Sequence[MapPredictions], batch: SurroundBatch, classes: Sequence[str]
) -> list[FoundLines]:
    """Return the lines of a batch with the names of their classes."""
    return [
        FoundLines(
            str(target.image_id), batch.map_frame, found.points.cpu(), found.scores.cpu(), found.labels.cpu(),
            tuple(classes[label] for label in found.labels.tolist()),
        )
        for found, target in zip(predictions, batch.targets, strict=True)
    ]  # fmt: skip
