"""How detection is judged and shown: average precision of boxes, and pictures with boxes on them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from winnow.builders import builder
from winnow.data.pixel_rule import PLAIN
from winnow.families.detection.batch import DetectionBatch, Detections, Target
from winnow.families.detection.data import DetectionData
from winnow.families.detection.found import FoundBoxes, batch_of_pictures, found_boxes
from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.detection.onnx_model import onnx_detector
from winnow.families.detection.pictures import draw_grid, draw_training_batches
from winnow.families.detection.report import NUM_WORST, detection_sections
from winnow.families.detection.trainable import warn_of_crowded
from winnow.sections import Section
from winnow.settings import Settings, build_settings

logger = logging.getLogger(__name__)


class BoxSettings(Settings):
    """The keys of ``evaluation=boxes``."""

    score_threshold: float = Field(ge=0, le=1)
    max_detections: int = Field(gt=0)
    backend: Literal["hotcoco", "pycocotools"]

    @field_validator("backend", mode="before")
    @classmethod
    def _todays_backend(cls, value: Any) -> Any:
        """Return what gives the numbers of a backend that is gone: runs that were recorded with one go on."""
        if value not in ("winnow", "faster-coco-eval"):
            return value
        logger.info("evaluation.backend=%s is now hotcoco, whose numbers are the same bit for bit", value)
        return "hotcoco"


class BoxEvaluation:
    """Obeys ``protocols.Evaluation``."""

    model_argument_names = ("classes", "new_metric", "max_detections", "score_threshold")

    def __init__(self, settings: BoxSettings) -> None:
        self._settings = settings

    @property
    def metric_modes(self) -> dict[str, str]:
        return dict.fromkeys([*CocoAp([], **self._settings.model_dump()).names, "map_class/*"], "max")

    def model_arguments(self, data: DetectionData) -> dict[str, Any]:
        settings = self._settings
        return {
            "classes": data.classes,
            "new_metric": partial(CocoAp, data.classes, data.category_ids, **settings.model_dump()),
            "max_detections": settings.max_detections,
            "score_threshold": settings.score_threshold,
        }

    def look_over(self, task: Any, data: DetectionData) -> None:
        """Warn of images with more objects than the model can give, or than are evaluated."""
        for part, records in (("training", data.train_records), ("validation", data.val_records)):
            if hasattr(task, "num_queries"):
                warn_of_crowded(part, records, "model.num_queries", task.num_queries)
        warn_of_crowded("validation", data.val_records, "evaluation.max_detections", self._settings.max_detections)

    def picture_batch(
        self, pixels: Sequence[np.ndarray], names: Sequence[str], data: Mapping[str, Any], image_size: int
    ) -> DetectionBatch:
        """Return pictures (H, W, 3) uint8 as a batch, sized as ``data``, the run's node, says."""
        return batch_of_pictures(pixels, names, image_size, data.get("resize") == "square")

    def found(
        self,
        predictions: Sequence[Detections],
        batch: DetectionBatch,
        classes: Sequence[str],
        category_ids: Sequence[int],
    ) -> list[FoundBoxes]:
        """Return what was found per picture of a ``picture_batch``."""
        return found_boxes(predictions, batch, classes, category_ids)

    def onnx_model(self, task: Any, data: Mapping[str, Any], image_size: int) -> Any:
        """Return ``task`` as an ONNX model of one picture, resized as ``data``, the run's node, says."""
        return onnx_detector(task.exportable(), image_size, data.get("resize") == "square")

    def from_onnx(self, outputs: Sequence[np.ndarray]) -> list[Detections]:
        """Return what the outputs of an ``onnx_model`` are as predictions on a batch of that picture."""
        return [Detections(*(torch.from_numpy(output) for output in outputs))]

    def draw(
        self, seen: Sequence[tuple[DetectionBatch, list[Detections]]], classes: Sequence[str], folder: Path
    ) -> Path:
        images: list[np.ndarray] = []
        targets: list[Target] = []
        for batch, _ in seen:
            pixels = batch.images.permute(0, 2, 3, 1).numpy()
            images += [pixels[row, : target.size[0], : target.size[1]] for row, target in enumerate(batch.targets)]
            targets += batch.targets
        path = folder / "val_detections.png"
        draw_grid(images, [found for _, detections in seen for found in detections], targets, classes, path)
        return path

    def report(self, arrays: Mapping[str, Any], data: Any, num_pictures: int | None) -> list[Section]:
        """Return the sections of a run's page; ``data`` gives the images' files."""
        records = getattr(data, "val_records", ())
        rule = getattr(data, "pixel_rule", PLAIN)
        return detection_sections(arrays, records, NUM_WORST if num_pictures is None else num_pictures, rule)

    def draw_training(self, batches: Sequence[DetectionBatch], classes: Sequence[str], path: Path, most: int) -> None:
        draw_training_batches(batches, classes, path, most)


@builder(BoxSettings)
def box_evaluation(**values: Any) -> BoxEvaluation:
    """Build the evaluation of every detection model."""
    return BoxEvaluation(build_settings(BoxSettings, values, "evaluation"))
