"""How ink is judged and shown: what is measured of skeletons and key points, and pictures of inputs, targets and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from winnow.builders import builder
from winnow.families.ink.batch import InkBatch
from winnow.families.ink.metric import InkMetric
from winnow.families.ink.pictures import draw_ink
from winnow.families.ink.predictions import InkPredictions
from winnow.settings import Settings, build_settings

CPU = torch.device("cpu")


class InkSettings(Settings):
    """The keys of ``evaluation=ink``."""

    skeleton_threshold: float = Field(gt=0, lt=1)
    key_point_threshold: float = Field(gt=0, lt=1)


class InkEvaluation:
    """Obeys ``protocols.Evaluation``."""

    model_argument_names = ("new_metric",)

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

    def draw(self, seen: Sequence[tuple[InkBatch, InkPredictions]], classes: Sequence[str], folder: Path) -> Path:
        path = folder / "val_ink.png"
        draw_ink([(batch, found.to(CPU)) for batch, found in seen], classes, path, **self._settings.model_dump())
        return path

    def draw_training(self, batches: Sequence[InkBatch], classes: Sequence[str], path: Path, most: int) -> None:
        seen = [(batch.to(CPU), None) for batch in batches]
        draw_ink(seen, classes, path, **self._settings.model_dump(), most=most)


@builder(InkSettings)
def ink_evaluation(**values: Any) -> InkEvaluation:
    """Build the evaluation of every ink model."""
    return InkEvaluation(build_settings(InkSettings, values, "evaluation"))
