"""How ink is judged and shown: what is measured of skeletons and key points, and pictures of inputs, targets and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from winnow.builders import builder
from winnow.families.ink.batch import InkBatch
from winnow.families.ink.found import FoundInk, PictureTiles, found_in_lines, tiles_of_pictures
from winnow.families.ink.metric import InkMetric
from winnow.families.ink.pictures import draw_ink
from winnow.families.ink.predictions import InkPredictions
from winnow.families.ink.report import NUM_WORST, ink_sections
from winnow.sections import Section
from winnow.settings import Settings, build_settings

CPU = torch.device("cpu")


class InkSettings(Settings):
    """The keys of ``evaluation=ink``."""

    skeleton_threshold: float = Field(gt=0, lt=1)
    key_point_threshold: float = Field(gt=0, lt=1)


class InkEvaluation:
    """Obeys ``protocols.Evaluation``."""

    model_argument_names = ("new_metric",)
    no_onnx = "a line is straightened, cut into tiles and put together again outside of the network, which a file would leave out"

    def __init__(self, settings: InkSettings) -> None:
        self._settings = settings

    @property
    def metric_modes(self) -> dict[str, str]:
        metric = InkMetric(full=True, **self._settings.model_dump())
        return {name: "max" if name in metric.worst else "min" for name in metric.names}

    def model_arguments(self, data: Any) -> dict[str, Any]:
        """Return ``new_metric(full=…)``: whether there are full heads to measure is the model's to say."""
        del data
        return {"new_metric": partial(InkMetric, **self._settings.model_dump())}

    def picture_batch(
        self, pixels: Sequence[np.ndarray], names: Sequence[str], data: Mapping[str, Any], image_size: int
    ) -> PictureTiles:
        """Return pictures (H, W, 3) uint8, each a line of dark text, as tiles of ``image_size`` px."""
        del data
        return tiles_of_pictures(pixels, names, image_size)

    def found(
        self, predictions: InkPredictions, batch: PictureTiles, classes: Sequence[str], category_ids: Sequence[int]
    ) -> list[FoundInk]:
        """Return what was found per line of a ``picture_batch``."""
        del classes, category_ids
        return found_in_lines(predictions, batch, self._settings.key_point_threshold)

    def draw(self, seen: Sequence[tuple[InkBatch, InkPredictions]], classes: Sequence[str], folder: Path) -> Path:
        path = folder / "val_ink.png"
        draw_ink([(batch, found.to(CPU)) for batch, found in seen], classes, path, **self._settings.model_dump())
        return path

    def report(self, arrays: Mapping[str, Any], data: Any, num_pictures: int | None) -> list[Section]:
        """Return the sections of a run's page."""
        return ink_sections(arrays, data, NUM_WORST if num_pictures is None else num_pictures)

    def draw_training(self, batches: Sequence[InkBatch], classes: Sequence[str], path: Path, most: int) -> None:
        seen = [(batch.to(CPU), None) for batch in batches]
        draw_ink(seen, classes, path, **self._settings.model_dump(), most=most)


@builder(InkSettings)
def ink_evaluation(**values: Any) -> InkEvaluation:
    """Build the evaluation of every ink model."""
    return InkEvaluation(build_settings(InkSettings, values, "evaluation"))
