"""What is known of one evaluated image, and of all of them as flat arrays that fit into a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_COLUMNS = {
    "true_boxes": np.float32, "true_labels": np.int32, "true_areas": np.float64, "true_crowd": np.bool_,
    "boxes": np.float32, "scores": np.float32, "labels": np.int32,
}  # fmt: skip


class ImageResult(NamedTuple):
    """What one image adds: the truth and what was found, boxes as xywh in original pixels, size as (height, width)."""

    image_id: int | str
    size: tuple[int, int]
    true_boxes: NDArray[np.float64]
    true_labels: NDArray[np.int64]
    true_areas: NDArray[np.float64]
    true_crowd: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


def to_arrays(images: Sequence[ImageResult]) -> dict[str, NDArray[Any]]:
    """Return ``images`` as arrays: ``image_ids`` as text, and ``has_text_id`` where the data set has it so; ``image_sizes``
    (height, width); ``true_image`` and ``found_image``, the row of ``image_ids`` of each true and each found box; and each
    column of ``ImageResult``, with boxes as float32 xyxy, which is what they came from: nothing is lost."""
    arrays: dict[str, NDArray[Any]] = {
        "image_ids": np.array([str(image.image_id) for image in images], dtype=np.str_),
        "has_text_id": np.array([isinstance(image.image_id, str) for image in images], dtype=np.bool_),
        "image_sizes": np.array([image.size for image in images], dtype=np.int32).reshape(-1, 2),
        "true_image": _rows([image.true_labels for image in images]),
        "found_image": _rows([image.labels for image in images]),
    }
    for name, kind in _COLUMNS.items():
        empty = np.zeros((0, 4)) if "boxes" in name else np.zeros(0)
        values = np.concatenate([empty, *(getattr(image, name) for image in images)])
        arrays[name] = (_corners(values) if "boxes" in name else values).astype(kind)
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> list[ImageResult]:
    """Return the images of ``CocoAp.arrays``. Raises KeyError and ValueError where
    they don't belong together."""
    ids, sizes = arrays["image_ids"], arrays["image_sizes"]
    columns = {name: arrays[name] for name in _COLUMNS}
    own = {name: arrays["true_image" if name.startswith("true_") else "found_image"] for name in _COLUMNS}
    for name, values in columns.items():
        shape = (len(own[name]), 4) if "boxes" in name else (len(own[name]),)
        if values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
        if len(own[name]) and not (
            own[name].min() >= 0 and own[name].max() < len(ids) and (np.diff(own[name]) >= 0).all()
        ):
            raise ValueError(
                f"the boxes of {name} belong to images {own[name].min()} to {own[name].max()} of {len(ids)}, in order"
            )
    if sizes.shape != (len(ids), 2) or arrays["has_text_id"].shape != (len(ids),):
        raise ValueError(f"image_sizes has shape {sizes.shape}, expected ({len(ids)}, 2)")
    for name in ("true_labels", "labels"):
        if len(columns[name]) and not 0 <= columns[name].min() <= columns[name].max() < len(arrays["classes"]):
            raise ValueError(f"{name} has labels outside 0 to {len(arrays['classes']) - 1}")
    for name in ("true_boxes", "true_areas", "boxes", "scores"):
        if not np.isfinite(columns[name]).all():
            raise ValueError(f"{name} has numbers that are not finite")
    parts = {name: _split(values, own[name], len(ids)) for name, values in columns.items()}
    return [
        ImageResult(
            image_id=str(ids[row]) if arrays["has_text_id"][row] else int(ids[row]),
            size=(int(sizes[row, 0]), int(sizes[row, 1])),
            true_boxes=_sizes(parts["true_boxes"][row]),
            true_labels=parts["true_labels"][row].astype(np.int64),
            true_areas=parts["true_areas"][row],
            true_crowd=parts["true_crowd"][row],
            boxes=_sizes(parts["boxes"][row]),
            scores=parts["scores"][row].astype(np.float64),
            labels=parts["labels"][row].astype(np.int64),
        )
        for row in range(len(ids))
    ]


def _rows(columns: Sequence[NDArray[Any]]) -> NDArray[np.int32]:
    return np.repeat(np.arange(len(columns), dtype=np.int32), [len(column) for column in columns])


def _split(values: NDArray[Any], rows: NDArray[Any], num_images: int) -> list[NDArray[Any]]:
    return np.split(values, np.searchsorted(rows, np.arange(1, num_images))) if num_images else []


def _corners(xywh: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _sizes(xyxy: NDArray[Any]) -> NDArray[np.float64]:
    corners = xyxy.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
