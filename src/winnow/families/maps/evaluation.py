"""How maps are judged and shown: average precision of lines, and pictures from above and in the front camera."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from winnow.builders import builder
from winnow.families.maps.batch import MapBatch
from winnow.families.maps.data import MapData
from winnow.families.maps.found import FoundLines, KnownMaps, SurroundBatch, batch_of_surround, found_lines
from winnow.families.maps.lines import CLASSES
from winnow.families.maps.metric import MapMetric
from winnow.families.maps.pictures import draw_maps
from winnow.families.maps.predictions import MapPredictions
from winnow.families.maps.report import NUM_WORST, map_sections
from winnow.families.maps.surround import Surround, read_surround, samples_of_infos, surround_of
from winnow.sections import Section
from winnow.settings import Settings, build_settings

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")


class MapEvaluationSettings(Settings):
    """The keys of ``evaluation=maps``."""

    max_lines: int = Field(gt=0)
    picture_threshold: float = Field(ge=0, le=1, strict=False)


class MapEvaluation:
    """Obeys ``protocols.Evaluation``."""

    model_argument_names = ("classes", "new_metric", "max_lines", "num_points", "region")
    no_onnx = "where its images look is worked out from their calibration outside of the network, which a file would leave out"
    data_of_model = ("map_frame", "region", "num_points")

    def __init__(self, settings: MapEvaluationSettings) -> None:
        self._settings = settings

    @property
    def metric_modes(self) -> dict[str, str]:
        names = MapMetric(CLASSES, (), self._settings.max_lines).names
        return {"map_city/*": "max"} | {name: "min" if name.startswith("error_m") else "max" for name in names}

    def known_data(self, classes: Sequence[str], data: Mapping[str, Any]) -> KnownMaps:
        """Return what ``model_arguments`` needs where there is no data but the run's node ``data``."""
        return KnownMaps.of(classes, data)

    def model_arguments(self, data: MapData | KnownMaps) -> dict[str, Any]:
        """Return, besides ``new_metric``: how many lines count per sample, and of how many points and in which region (a
        ``frame.Region``) they are to be."""
        max_lines = self._settings.max_lines
        return {
            "classes": data.classes,
            "new_metric": partial(MapMetric, data.classes, data.cities, max_lines),
            "max_lines": max_lines,
            "num_points": data.num_points,
            "region": data.region,
        }

    def look_over(self, task: Any, data: MapData) -> None:
        """Warn of samples with more lines than the model can give, and of classes that the validation set holds no line of."""
        most = getattr(task, "num_instances", None)
        for part, counts in data.lines_per_sample.items():
            beyond = [count - most for count in counts if count > most] if most is not None else []
            if beyond:
                logger.warning(
                    "%d of %d %s samples hold more lines than model.num_instances=%d: %d go beyond it; the most in one are %d",
                    len(beyond), len(counts), part, most, sum(beyond), max(counts),
                )  # fmt: skip
        if data.num_val_lines is None:
            return
        absent = [name for name, count in zip(CLASSES, data.num_val_lines, strict=True) if not count]
        if absent and len(absent) < len(CLASSES):
            there = [name for name in CLASSES if name not in absent]
            logger.warning(
                "the validation set holds no %s: val/map is the mean over %d classes, %s",
                " and no ".join(absent), len(there), " and ".join(there),
            )  # fmt: skip

    def report(self, arrays: Mapping[str, Any], data: Any, num_pictures: int | None) -> list[Section]:
        """Return the sections of a run's page."""
        return map_sections(arrays, data, NUM_WORST if num_pictures is None else num_pictures)

    def samples_in(self, paths: Sequence[str | Path], root: str | Path | None) -> list[dict[str, Any]]:
        """Return the samples of files of infos, their images below ``root``."""
        return samples_of_infos(paths, root)

    def read_sample(self, source: Any, number: int) -> tuple[str, Surround]:
        """Return the name of a sample, and its images and calibration."""
        sample = read_surround(source, number)
        return sample.keyframe.token, sample

    def sample_of(self, picture: NDArray[np.uint8]) -> Surround:
        """Return a sample whose six cameras, nuScenes' about, all see ``picture`` (H, W, 3) uint8."""
        return surround_of(picture)

    def picture_batch(
        self, samples: Sequence[Surround], names: Sequence[str], data: Mapping[str, Any], image_size: int
    ) -> SurroundBatch:
        """Return samples as a batch, in the frame of ``data``, the run's node."""
        del names
        known = KnownMaps.of(CLASSES, data)
        return batch_of_surround(samples, known.map_frame, image_size, known.num_points)

    def found(
        self,
        predictions: Sequence[MapPredictions],
        batch: SurroundBatch,
        classes: Sequence[str],
        category_ids: Sequence[int],
    ) -> list[FoundLines]:
        """Return what was found per sample of a ``picture_batch``."""
        del category_ids
        return found_lines(predictions, batch, classes)

    def draw(self, seen: Sequence[tuple[MapBatch, list[MapPredictions]]], classes: Sequence[str], folder: Path) -> Path:
        path = folder / "val_maps.png"
        parts = [(batch, [own.to(CPU) for own in found]) for batch, found in seen]
        draw_maps(parts, classes, path, self._settings.picture_threshold)
        return path

    def draw_training(self, batches: Sequence[MapBatch], classes: Sequence[str], path: Path, most: int) -> None:
        draw_maps([(batch.to(CPU), None) for batch in batches], classes, path, most=most)


@builder(MapEvaluationSettings)
def map_evaluation(**values: Any) -> MapEvaluation:
    """Build the evaluation of every map model."""
    return MapEvaluation(build_settings(MapEvaluationSettings, values, "evaluation"))
