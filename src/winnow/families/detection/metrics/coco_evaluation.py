"""COCO's evaluation of boxes by hotcoco or pycocotools: the same numbers bit for bit (benchmarks/evaluation_rivals.py)."""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from winnow.errors import ConfigError
from winnow.families.detection.metrics.image_result import ImageResult, to_arrays

BACKENDS = ("hotcoco", "pycocotools")

Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Precision (10 IoUs, 101 recalls, classes, 4 areas, 1) and recall (10, classes, 4, 1), −1 where there is no truth."""


def precision_and_recall(images: Sequence[ImageResult], num_classes: int, max_detections: int, backend: str) -> Arrays:
    """Return COCO's arrays of ``images``, in whose order equal scores are ranked; of each class and image the best
    ``max_detections`` count. Raises ConfigError where the backend is not installed."""
    if backend == "pycocotools":
        results = _run_pycocotools(images, num_classes, max_detections)
    else:
        evaluation = evaluation_of(images, num_classes, max_detections)
        evaluation.accumulate()
        results = evaluation.eval or {}
    return np.asarray(results["precision"]), np.asarray(results["recall"])


def evaluation_of(images: Sequence[ImageResult], num_classes: int, max_detections: int) -> COCOeval:
    """Return hotcoco's evaluation of ``images``, matched and not yet accumulated: its ids are rows of ``images`` from 1, its
    categories are labels."""
    arrays = to_arrays(images)
    # Of the original columns: those of the file are corners.
    true, found = (np.concatenate([np.zeros((0, 4)), *boxes]) for boxes in _xywh(images))
    truth = COCO.from_arrays(
        [{"id": row, "height": image.size[0], "width": image.size[1]} for row, image in enumerate(images, start=1)],
        [{"id": label, "name": str(label)} for label in range(num_classes)],
        arrays["true_image"].astype(np.int64) + 1,
        arrays["true_labels"].astype(np.int64),
        true,
        ids=np.arange(1, len(true) + 1),
        area=arrays["true_areas"],
        iscrowd=arrays["true_crowd"].astype(np.int64),
    )
    scores = np.concatenate([np.zeros(0), *(image.scores for image in images)])
    rows = np.column_stack([arrays["found_image"] + 1.0, found, scores, arrays["labels"].astype(np.float64)])
    evaluation = COCOeval(truth, truth.load_res(rows), "bbox")
    evaluation.params.max_dets = [max_detections]
    evaluation.evaluate()
    return evaluation


def _xywh(images: Sequence[ImageResult]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    return [image.true_boxes for image in images], [image.boxes for image in images]


def _run_pycocotools(images: Sequence[ImageResult], num_classes: int, max_detections: int) -> dict[str, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ConfigError(
            f"evaluation.backend='pycocotools' can't be imported ({error}): pip install pycocotools"
        ) from error
    frame = {
        "images": [{"id": i, "height": im.size[0], "width": im.size[1]} for i, im in enumerate(images, start=1)],
        "categories": [{"id": k, "name": str(k)} for k in range(num_classes)],
    }
    with _garbage_collection_paused(), contextlib.redirect_stdout(io.StringIO()):
        datasets = []
        for annotations in (_true_annotations(images), _found_annotations(images)):
            datasets.append(COCO())
            datasets[-1].dataset = {**frame, "annotations": _with_ids(annotations)}
            datasets[-1].createIndex()
        evaluator = COCOeval(*datasets, "bbox")
        evaluator.params.maxDets = [max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
    return dict(evaluator.eval)


def _true_annotations(images: Iterable[ImageResult]) -> Iterable[dict[str, Any]]:
    for index, image in enumerate(images, start=1):
        columns = (image.true_boxes, image.true_labels, image.true_areas, image.true_crowd.astype(int))
        for box, label, area, crowd in zip(*(column.tolist() for column in columns), strict=True):
            yield {"image_id": index, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}


def _found_annotations(images: Iterable[ImageResult]) -> Iterable[dict[str, Any]]:
    for index, image in enumerate(images, start=1):
        areas = image.boxes[:, 2] * image.boxes[:, 3]
        columns = (image.boxes, image.labels, areas, image.scores)
        for box, label, area, score in zip(*(column.tolist() for column in columns), strict=True):
            yield {"image_id": index, "category_id": label, "bbox": box, "area": area, "iscrowd": 0, "score": score}


def _with_ids(annotations: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    # From 1: pycocotools reads a match with annotation 0 as no match.
    numbered = list(annotations)
    for index, annotation in enumerate(numbered, start=1):
        annotation["id"] = index
    return numbered


@contextlib.contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    # pycocotools wants a dict per box. Walking half a million of them again and again took more time than the evaluation.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
