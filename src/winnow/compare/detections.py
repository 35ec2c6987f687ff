"""How far the difference between runs depends on which validation images there are: a paired bootstrap of what they stored."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import compare as bootstrapped
from numpy.typing import NDArray

from winnow.errors import DataError
from winnow.families.detection.metrics.coco_evaluation import evaluation_of
from winnow.families.detection.metrics.image_result import from_arrays
from winnow.reading import read_arrays

NAMES = {
    "val/map": "AP", "val/map_50": "AP50", "val/map_75": "AP75", "val/map_small": "APs", "val/map_medium": "APm",
    "val/map_large": "APl",
}  # fmt: skip
"""Objectives that stored detections give, by hotcoco's names."""
RESAMPLES = 200
_TRUTH = ("image_ids", "classes", "true_image", "true_boxes", "true_labels", "true_crowd")


def have_same_truth(paths: Sequence[Path]) -> bool:
    """Return whether all runs were evaluated on the same images with the same objects. Raises DataError for a damaged file."""
    arrays = [_read(path) for path in paths]
    return all(np.array_equal(other[name], arrays[0][name]) for other in arrays[1:] for name in _TRUTH)


def pair_variances(paths: Sequence[Path], metric: str, resamples: int = RESAMPLES) -> dict[tuple[int, int], float]:
    """Return for each pair i < j of runs the variance of the difference of ``metric`` over resampled validation images, the same
    ones for both. Raises DataError for a damaged file, KeyError for a metric that ``NAMES`` lacks."""
    name = NAMES[metric]
    evaluations = [_evaluation(_read(path), path) for path in paths]
    return {
        (i, j): float(
            bootstrapped(evaluations[i], evaluations[j], n_bootstrap=resamples, seed=0)["ci"][name]["std_err"]
        )
        ** 2
        for i, j in itertools.combinations(range(len(paths)), 2)
    }


def _read(path: Path) -> dict[str, NDArray[Any]]:
    arrays = read_arrays(path, DataError)
    missing = [name for name in _TRUTH if name not in arrays]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: it holds no detections")
    return arrays


def _evaluation(arrays: dict[str, NDArray[Any]], path: Path) -> Any:
    try:
        images = from_arrays(arrays)
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} holds no detections that belong together: {error}") from error
    return evaluation_of(images, len(arrays["classes"]), 100)
