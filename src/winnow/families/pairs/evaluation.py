"""How pairs are judged and shown: average precision, KAIST's miss rate, and pictures of both images with boxes on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from winnow.builders import builder
from winnow.families.detection.batch import Detections
from winnow.families.detection.report import NUM_WORST, detection_sections
from winnow.families.detection.trainable import warn_of_crowded
from winnow.families.pairs.alignment import Alignment, draw_alignment
from winnow.families.pairs.batch import PairBatch
from winnow.families.pairs.metrics.pair_metric import MACL, MACL_CHANCE, MISS_RATES, PairMetric
from winnow.families.pairs.pictures import draw_pairs, draw_training_pairs
from winnow.sections import Section
from winnow.settings import Settings, build_settings


class PairEvaluationSettings(Settings):
    """The keys of ``evaluation=pairs``."""

    score_threshold: float = Field(ge=0, le=1)
    max_detections: int = Field(gt=0)
    ap_detections: int = Field(gt=0)


class PairEvaluation:
    """Obeys ``protocols.Evaluation``."""

    model_argument_names = ("classes", "new_metric", "max_detections", "score_threshold")

    def __init__(self, settings: PairEvaluationSettings) -> None:
        self._settings = settings

    @property
    def metric_modes(self) -> dict[str, str]:
        names = [*PairMetric([], max_detections=self._settings.ap_detections).names, "map_class/*"]
        return {name: "min" if name in (*MISS_RATES, MACL) else "max" for name in names if name != MACL_CHANCE}

    def model_arguments(self, data: Any) -> dict[str, Any]:
        settings = self._settings
        return {
            "classes": data.classes,
            "new_metric": partial(
                PairMetric, data.classes, data.category_ids, settings.score_threshold, settings.ap_detections
            ),
            "max_detections": settings.max_detections,
            "score_threshold": settings.score_threshold,
        }

    def look_over(self, task: Any, data: Any) -> None:
        """Warn of pairs with more objects than are evaluated."""
        warn_of_crowded("validation", data.val_records, "evaluation.ap_detections", self._settings.ap_detections)

    def draw(self, seen: Sequence[tuple[PairBatch, list[Detections]]], classes: Sequence[str], folder: Path) -> Path:
        path = folder / "val_detections.png"
        draw_pairs(seen, classes, path)
        return path

    def draw_epoch(self, task: Any, batches: Iterable[PairBatch], folder: Path, epoch: int) -> Path | None:
        """Draw the objects of ``batches`` as MACL projects them; None without MACL, or where both images show fewer than two."""
        head = getattr(task.model, "alignment", None)
        if head is None:
            return None
        alignment = Alignment(head)
        for batch in batches:
            alignment.add(task, batch)
        visible, infrared = alignment.objects()
        if len(visible) < 2:
            return None
        path = folder / f"alignment_epoch_{epoch}.png"
        draw_alignment(visible, infrared, path, f"epoch {epoch}")
        return path

    def report(self, arrays: Mapping[str, Any], data: Any, num_pictures: int | None) -> list[Section]:
        """Return the sections of a run's page, with the visible images."""
        records = getattr(data, "val_records", ())
        return detection_sections(arrays, records, NUM_WORST if num_pictures is None else num_pictures)

    def draw_training(self, batches: Sequence[PairBatch], classes: Sequence[str], path: Path, most: int) -> None:
        draw_training_pairs(batches, classes, path, most)


@builder(PairEvaluationSettings)
def pair_evaluation(**values: Any) -> PairEvaluation:
    """Build the evaluation of every model of pairs."""
    return PairEvaluation(build_settings(PairEvaluationSettings, values, "evaluation"))
