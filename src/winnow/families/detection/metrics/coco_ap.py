"""COCO average precision of boxes: gathers detections and truth as small numpy arrays and hands them to a COCO
evaluator."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from winnow.errors import ConfigError
from winnow.families.detection.batch import DetectionBatch, Detections
from winnow.families.detection.metrics.coco_evaluation import BACKENDS, precision_and_recall
from winnow.families.detection.metrics.coco_matching import Boxes
from winnow.families.detection.metrics.image_result import ImageResult, to_arrays

logger = logging.getLogger(__name__)

AREA_NAMES = ("all", "small", "medium", "large")
"""COCO's area ranges in the order in which the evaluation holds them: bounds 32² and 96² original pixels."""


class CocoAp:
    """Mean average precision of detections as COCO defines it (Lin et al. 2014;
    https://cocodataset.org/#detection-eval).

    Truth comes with the batch, so subsets, overfit runs and ranks need no annotation file. Boxes are compared in pixels
    of the original image. Detections below ``score_threshold`` are left out, as are those with a non-finite box or
    score (counted in the log); of each class and image the best ``max_detections`` count. Crowds are ignored as COCO
    ignores them. An image that comes twice (padding of a rank's share) counts once.

    ``category_ids`` are the data set's own ids in the order of ``class_names``, only for ``detections_json``; 1…n if
    None. Raises ConfigError for settings that can't be meant, naming ``evaluation.…``.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        category_ids: Sequence[int] | None = None,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        backend: str = "hotcoco",
    ) -> None:
        if backend not in BACKENDS:
            raise ConfigError(f"evaluation.backend={backend!r} is not known; allowed: {', '.join(BACKENDS)}")
        if not 0 <= score_threshold <= 1:
            raise ConfigError(f"evaluation.score_threshold={score_threshold!r} must be in [0, 1]")
        if max_detections < 1:
            raise ConfigError(f"evaluation.max_detections={max_detections!r} must be at least 1")
        self.class_names = list(class_names)
        self.category_ids = list(category_ids) if category_ids is not None else list(range(1, len(class_names) + 1))
        if len(set(self.category_ids)) != len(self.class_names):
            raise ConfigError(
                f"each of the {len(self.class_names)} classes needs a category id of its own, got {self.category_ids}"
            )
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.backend = backend
        self._images: dict[int | str, ImageResult] = {}
        self._num_dropped = 0

    def update(self, predictions: Sequence[Detections], batch: DetectionBatch) -> None:
        """Add one batch: a ``Detections`` per target, boxes in original pixels. Raises ValueError on labels outside
        0…n−1."""
        for found, target in zip(predictions, batch.targets, strict=True):
            boxes, scores, labels = (_array(x) for x in (found.boxes, found.scores, found.labels))
            finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
            self._num_dropped += len(finite) - int(finite.sum())
            keep = finite & (scores >= self.score_threshold)
            true_labels = _array(target.original_labels).astype(np.int64)
            self._check_labels(labels, "a detection", target.image_id)
            self._check_labels(true_labels, "an annotation", target.image_id)
            self._images[target.image_id] = ImageResult(
                image_id=target.image_id,
                size=target.original_size,
                true_boxes=_xywh(_array(target.original_boxes)),
                true_labels=true_labels,
                true_areas=_array(target.original_areas).astype(np.float64),
                true_crowd=_array(target.original_crowd).astype(bool),
                boxes=_xywh(boxes[keep]),
                scores=scores[keep].astype(np.float64),
                labels=labels[keep].astype(np.int64),
            )

    def state(self) -> dict[str, Any]:
        return {"images": list(self._images.values()), "num_dropped": self._num_dropped}

    def merge(self, state: dict[str, Any]) -> None:
        self._images |= {image.image_id: image for image in state["images"]}
        self._num_dropped += state["num_dropped"]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was gathered as arrays (see ``to_arrays``), with the ``classes`` and their ``category_ids``."""
        classes = np.array(self.class_names, dtype=np.str_), np.array(self.category_ids, dtype=np.int64)
        return {"classes": classes[0], "category_ids": classes[1], **to_arrays(self.sorted_images())}

    headlines: tuple[str, ...] = ("map", "map_50")

    @property
    def names(self) -> list[str]:
        """Return everything ``compute`` may give."""
        maps = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large", f"mar_{self.max_detections}"]
        return [*maps, *(f"map_class/{name}" for name in metric_names(self.class_names))]

    @property
    def worst(self) -> dict[str, float]:
        """Return the worst value of each name: nothing was found."""
        return dict.fromkeys(self.names, 0.0)

    def compute(self) -> dict[str, float]:
        """Return ``map``, ``map_50``, ``map_75``, ``map_small``, ``map_medium``, ``map_large``, ``mar_N`` and
        ``map_class/NAME``.

        N is ``max_detections``, so ``mar_100`` unless that was changed. COCO's −1 ("no truth of this size or class") is
        no number to plot or to search by: such a name is left out. So nothing at all comes without images or without
        truth. NAME is the class name with what MLflow refuses replaced by ``_``.
        """
        if self._num_dropped:
            logger.warning("%s detections with a non-finite box or score were left out", self._num_dropped)
        if not any(len(image.true_labels) for image in self._images.values()):
            logger.warning("no average precision: %s images evaluated, none with an annotation", len(self._images))
            return {}
        precision, recall = precision_and_recall(
            self.sorted_images(), len(self.class_names), self.max_detections, self.backend
        )
        values = {"map": _mean(precision[..., 0, 0])}
        values |= {
            f"map_{round(100 * iou)}": _mean(precision[index, ..., 0, 0]) for index, iou in ((0, 0.5), (5, 0.75))
        }
        values |= {f"map_{name}": _mean(precision[..., area, 0]) for area, name in enumerate(AREA_NAMES) if area}
        values[f"mar_{self.max_detections}"] = _mean(recall[..., 0, 0])
        names = metric_names(self.class_names)
        values |= {f"map_class/{name}": _mean(precision[:, :, k, 0, 0]) for k, name in enumerate(names)}
        return {name: value for name, value in values.items() if value is not None}

    def detections_json(self) -> list[dict[str, Any]]:
        """Return what was gathered in COCO's result format: ``image_id``, ``category_id`` (the data set's), ``bbox``
        xywh, ``score``.
        """
        return [
            {"image_id": image.image_id, "category_id": self.category_ids[label], "bbox": box, "score": score}
            for image in self.sorted_images()
            for box, score, label in zip(
                image.boxes.tolist(), image.scores.tolist(), image.labels.tolist(), strict=True
            )
        ]

    def _check_labels(self, labels: NDArray[Any], what: str, image_id: int | str) -> None:
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.class_names)):
            wrong = sorted({int(label) for label in labels if not 0 <= label < len(self.class_names)})
            raise ValueError(
                f"{what} of image {image_id!r} has label {wrong}; allowed: 0 to {len(self.class_names) - 1}"
            )

    def sorted_images(self) -> list[ImageResult]:
        # Equal scores are ranked by image: a fixed order makes the result independent of ranks and shuffling.
        return sorted(self._images.values(), key=lambda image: (isinstance(image.image_id, str), image.image_id))


def boxes_of(images: Sequence[ImageResult], true: bool) -> Boxes:
    """Return the true or the found boxes of all images."""
    xywh = np.concatenate([image.true_boxes if true else image.boxes for image in images])
    labels = [image.true_labels if true else image.labels for image in images]
    areas = np.concatenate([image.true_areas for image in images]) if true else xywh[:, 2] * xywh[:, 3]
    numbers = np.repeat(np.arange(len(images)), [len(image_labels) for image_labels in labels])
    return Boxes(numbers, np.concatenate(labels), xywh, areas)


def metric_names(class_names: Sequence[str]) -> list[str]:
    """Return class names as parts of metric names: word characters, ``-``, ``.`` and inner spaces stay, all else
    becomes ``_``.

    Names that would become equal get their class index appended, so there are as many different names as classes.
    """
    names: list[str] = []
    for index, class_name in enumerate(class_names):
        name = re.sub(r"[^\w\-. ]", "_", class_name).strip() or f"class_{index}"
        name = name.replace(".", "_") if set(name) == {"."} else name
        names.append(f"{name}_{index}" if name in names else name)
    return names


def _array(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy()


def _xywh(boxes: NDArray[Any]) -> NDArray[np.float64]:
    corners = boxes.reshape(-1, 4).astype(np.float64)
    # A box turned inside out must stay a false positive; with a negative area the evaluators would not see it at all.
    return np.concatenate([corners[:, :2], np.maximum(corners[:, 2:] - corners[:, :2], 0)], axis=1)


def _mean(values: NDArray[np.float64]) -> float | None:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None
