"""How maps are judged and shown: average precision of lines, and pictures from above and in the front camera."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from winnow.builders import builder
from winnow.families.maps.batch import MapBatch
from winnow.families.maps.data import MapData
from winnow.families.maps.lines import CLASSES
from winnow.families.maps.metric import MapMetric
from winnow.families.maps.pictures import draw_maps
from winnow.families.maps.predictions import MapPredictions
from winnow.families.maps.report import NUM_WORST, map_sections
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

    def __init__(self, settings: MapEvaluationSettings) -> None:
        self._settings = settings

    @property
    def metric_modes(self) -> dict[str, str]:
        names = MapMetric(CLASSES, (), self._settings.max_lines).names
        return {"map_city/*": "max"} | {name: "min" if name.startswith("error_m") else "max" for name in names}

    def model_arguments(self, data: MapData) -> dict[str, Any]:
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
        """Warn of classes that the validation set holds no line of."""
        del task
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
