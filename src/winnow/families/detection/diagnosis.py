"""What can be read from stored detections: curves, thresholds, confusions and errors, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow.families.detection.metrics.coco_ap import AREA_NAMES
from winnow.families.detection.metrics.coco_evaluation import evaluation_of
from winnow.families.detection.metrics.image_result import ImageResult

RECALLS = np.linspace(0.0, 1.0, 101)
MATCHED_AT = 0.5
ERRORS = {
    "Cls": "wrong class", "Loc": "badly placed", "Both": "wrong class and badly placed", "Dupe": "found twice",
    "Bkg": "background", "Miss": "missed",
}  # fmt: skip
"""Kinds of errors as TIDE names them (Bolya et al. 2020, arXiv:2008.08115) → words."""


@dataclass(frozen=True)
class Best:
    """Where precision and recall at IoU 0.5 have the best F1: a score threshold, and what holds there."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class JudgedImage:
    """One image at a score threshold. Rows of found boxes: ``hits``, of the right class at a wrong place or on nothing ``false``,
    on an object of another class ``confused``; rows of true boxes that were ``missed``. ``f1`` is 1 where nothing is there and
    nothing was found. ``doubt``: the mean of 4s(1−s) over as many of the surest scores s as there are objects or detections."""

    row: int
    hits: tuple[int, ...]
    false: tuple[int, ...]
    confused: tuple[int, ...]
    missed: tuple[int, ...]
    f1: float
    doubt: float


class Diagnosis:
    """``images`` judged by hotcoco. ``max_detections`` count of each image and class."""

    def __init__(self, images: Sequence[ImageResult], class_names: Sequence[str], max_detections: int = 100) -> None:
        self.images = images
        self.class_names = list(class_names)
        self._max_detections = max_detections
        self._evaluation = evaluation_of(images, len(class_names), max_detections)
        self._evaluation.accumulate()
        results: dict[str, Any] = self._evaluation.eval or {}
        self._precision, self._recall, self._scores = (
            np.asarray(results[name])[..., 0] for name in ("precision", "recall", "scores")
        )

    @property
    def labels(self) -> list[int]:
        """Return the labels that have a true box that counts."""
        return [label for label in range(len(self.class_names)) if (self._precision[0, :, label, 0] > -1).any()]

    def ap(self, label: int, area: int = 0, iou: int | None = None) -> float:
        """Return the average precision of a class in an area range of ``AREA_NAMES``, at the ``iou``-th of the ten thresholds or
        as the mean over all; NaN without a true box."""
        values = self._precision[slice(None) if iou is None else iou, ..., label, area]
        return float(values.mean()) if (values > -1).all() else math.nan

    def curve(self, label: int) -> NDArray[np.float64]:
        """Return the precision at the 101 ``RECALLS`` at IoU 0.5."""
        return np.asarray(self._precision[0, :, label, 0])

    def best(self, label: int) -> Best:
        """Return where F1 is best along ``curve``; a threshold of 1 where nothing is found."""
        precision = self.curve(label)
        f1 = 2 * precision * RECALLS / np.maximum(precision + RECALLS, 1e-12)
        place = int(f1.argmax())
        if f1[place] <= 0:
            return Best(1.0, 0.0, 0.0, 0.0)
        score = float(self._scores[0, place, label, 0])
        return Best(score, float(f1[place]), float(precision[place]), float(RECALLS[place]))

    @cached_property
    def threshold(self) -> float:
        """Return one score threshold for all classes: the mean of their best ones, weighted by their true boxes."""
        counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *(one.true_labels for one in self.images)]))
        known = [(self.best(label).threshold, counts[label]) for label in self.labels if self.best(label).f1 > 0]
        return float(np.average([t for t, _ in known], weights=[n for _, n in known])) if known else 0.5

    def strata(self) -> list[tuple[str, int, float, float]]:
        """Return (name, number of true boxes, mean AP, mean recall) of the area ranges small, medium and large; NaN where there
        is none."""
        areas = np.concatenate([np.zeros(0), *(one.true_areas[~one.true_crowd] for one in self.images)])
        bounds = (0, 32**2, 96**2, 1e10)
        rows = []
        for index, name in enumerate(AREA_NAMES[1:], start=1):
            inside = int(((areas >= bounds[index - 1]) & (areas <= bounds[index])).sum())
            rows.append((name, inside, _mean(self._precision[..., index]), _mean(self._recall[..., index])))
        return rows

    def confusion(self) -> list[list[int]]:
        """Return counts by true (rows) and found class (columns) at ``threshold`` and IoU 0.5; the last row and column are the
        background."""
        matrix = self._evaluation.confusion_matrix(iou_thr=MATCHED_AT, min_score=self.threshold)["matrix"]
        return [[int(value) for value in row] for row in np.asarray(matrix)]

    def errors(self) -> dict[str, tuple[int, float]]:
        """Return kind of error → how many there are, and how much average precision at IoU 0.5 mending all of them would give."""
        tide = self._evaluation.tide_errors()
        return {name: (int(tide["counts"][name]), float(tide["delta_ap"][name])) for name in ERRORS}

    def label_doubts(self) -> list[dict[str, Any]]:
        """Return annotations that are perhaps wrong, the likeliest first: a sure detection (of at least ``threshold``) on an
        object of another class, or where nothing is annotated. Keys as hotcoco has them; ``image_id`` is a row of ``images``,
        counted from 1."""
        found = self._evaluation.image_diagnostics(iou_thr=MATCHED_AT, score_thr=max(0.5, self.threshold))[
            "label_errors"
        ]
        return sorted(found, key=lambda doubt: -doubt["dt_score"])

    def judged(self) -> list[JudgedImage]:
        """Return every image at ``threshold``; what scores less is as if it were not there."""
        shown = [np.flatnonzero(image.scores >= self.threshold) for image in self.images]
        sure = [
            image._replace(boxes=image.boxes[rows], scores=image.scores[rows], labels=image.labels[rows])
            for image, rows in zip(self.images, shown, strict=True)
        ]
        seen = evaluation_of(sure, len(self.class_names), self._max_detections).image_diagnostics(iou_thr=MATCHED_AT)
        found, true = seen["dt_status"], seen["gt_status"]
        next_found = next_true = 1  # ids count on from image to image
        judged = []
        for number, (image, rows) in enumerate(zip(self.images, shown, strict=True)):
            is_hit = [found.get(next_found + place) == "tp" for place in range(len(rows))]
            others = [int(row) for row, hit in zip(rows, is_hit, strict=True) if not hit]
            confused = tuple(row for row in others if _is_on_another(image, row))
            missed = tuple(place for place in range(len(image.true_labels)) if true.get(next_true + place) == "fn")
            hits = tuple(int(row) for row, hit in zip(rows, is_hit, strict=True) if hit)
            wrong = len(others) + len(missed)
            f1 = 2 * len(hits) / (2 * len(hits) + wrong) if wrong else 1.0
            false = tuple(row for row in others if row not in confused)
            judged.append(JudgedImage(number, hits, false, confused, missed, f1, _doubt(image, len(rows))))
            next_found += len(rows)
            next_true += len(image.true_labels)
        return judged


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else math.nan


def _doubt(image: ImageResult, num_shown: int) -> float:
    surest = np.sort(image.scores)[::-1][: max(1, num_shown, len(image.true_labels))]
    return float((4 * surest * (1 - surest)).mean()) if len(surest) else 0.0


def _is_on_another(image: ImageResult, row: int) -> bool:
    """Return whether the found box lies on a true one of another class."""
    x, y, width, height = image.boxes[row]
    true = image.true_boxes[(image.true_labels != image.labels[row]) & ~image.true_crowd]
    if not len(true):
        return False
    across = np.minimum(x + width, true[:, 0] + true[:, 2]) - np.maximum(x, true[:, 0])
    down = np.minimum(y + height, true[:, 1] + true[:, 3]) - np.maximum(y, true[:, 1])
    overlap = np.maximum(across, 0) * np.maximum(down, 0)
    return bool((overlap >= MATCHED_AT * (width * height + true[:, 2] * true[:, 3] - overlap)).any())
