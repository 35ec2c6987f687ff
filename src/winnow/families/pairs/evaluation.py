"""How pairs are judged and shown: average precision, KAIST's miss rate, and pictures of both images with boxes on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from winnow.builders import builder
from winnow.data.pixel_rule import PLAIN
from winnow.families.detection.batch import Detections
from winnow.families.detection.found import found_boxes
from winnow.families.detection.report import NUM_WORST, detection_sections
from winnow.families.detection.trainable import warn_of_crowded
from winnow.families.pairs.alignment import Alignment, draw_alignment
from winnow.families.pairs.batch import MODALITIES, PairBatch
from winnow.families.pairs.found import FoundPair, Pair, batch_of_pairs
from winnow.families.pairs.metrics.pair_metric import MACL, MACL_CHANCE, MISS_RATES, PairMetric
from winnow.families.pairs.pictures import draw_pairs, draw_training_pairs
from winnow.families.pairs.report import pair_sections
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
    picture_parts = MODALITIES
    no_onnx = (
        "models of pairs are Faster R-CNNs, and what torchvision's suppression does depends on how many boxes there are, which "
        "torch's exporter does not take"
    )

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

    def picture_batch(
        self, pixels: Sequence[Pair], names: Sequence[str], data: Mapping[str, Any], image_size: int
    ) -> PairBatch:
        """Return pairs of pictures as a batch, sized as ``data``, the run's node, says, and of the modalities that it names."""
        return batch_of_pairs(pixels, names, image_size, data.get("resize") == "square", data["modalities"])

    def found(
        self, predictions: Sequence[Detections], batch: PairBatch, classes: Sequence[str], category_ids: Sequence[int]
    ) -> list[FoundPair]:
        """Return what was found per pair of a ``picture_batch``."""
        return [FoundPair(**vars(one)) for one in found_boxes(predictions, batch, classes, category_ids)]

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
        rule = getattr(data, "pixel_rule", PLAIN)
        sections = detection_sections(arrays, records, NUM_WORST if num_pictures is None else num_pictures, rule)
        return [*sections, *pair_sections(arrays)]

    def draw_training(self, batches: Sequence[PairBatch], classes: Sequence[str], path: Path, most: int) -> None:
        draw_training_pairs(batches, classes, path, most)


@builder(PairEvaluationSettings)
def pair_evaluation(**values: Any) -> PairEvaluation:
    """Build the evaluation of every model of pairs."""
    return PairEvaluation(build_settings(PairEvaluationSettings, values, "evaluation"))
