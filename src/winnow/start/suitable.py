"""Whether a described data set can be trained on from start to end, said before any time is spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from winnow.errors import DataError
from winnow.families.detection.describe import Description

LEAST_IMAGES = 8
"""To train on: two batches of the recipe's."""


def require_suitable(found: Description, source: Path, given: Sequence[str]) -> None:
    """Raise DataError where nothing could be trained or nothing said how good it is; ``given`` are the user's own overrides."""
    train = found.splits.get("train") or found.splits.get("all")
    if train is None:
        raise DataError(f"{source} has no train split, only {', '.join(found.splits)}: there is nothing to train on")
    if "FOLDER" in found.overrides.values():
        raise DataError(
            f"{source} is one file, which does not say where its images are; name a folder that holds both "
            "(docs/data.md lists the layouts)"
        )
    if not train.num_boxes:
        raise DataError(
            f"the train split of {source} has {train.num_images} images and not one box: there is nothing to learn"
        )
    if train.num_images < LEAST_IMAGES:
        raise DataError(
            f"the train split of {source} has {train.num_images} images; at least {LEAST_IMAGES} are needed to begin with"
        )
    if any(text.startswith(("data.val_part=", "data.folds=", "data.val.", "data.val=")) for text in given):
        return
    if "val" not in found.splits:
        hold_out = (
            f"; `winnow start {source} data.val_part=0.15` holds a part of train out"
            if found.overrides["data"] in ("coco", "voc", "yolo")
            else ""
        )
        raise DataError(f"{source} has no val split, and without one nothing says which trial is better{hold_out}")
    if not found.splits["val"].num_boxes:
        raise DataError(f"the val split of {source} has not one box, so nothing says which trial is better")
