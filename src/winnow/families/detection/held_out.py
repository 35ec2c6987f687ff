"""Holds a part of one annotated set out for validation, by the bytes of its images: ``data.val_part``, ``data.folds``."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from winnow.data.split_by_hash import places_of
from winnow.errors import ConfigError, DataError
from winnow.families.detection.formats.records import CocoSplit, FlatRecords
from winnow.families.detection.settings import HeldOutSettings

logger = logging.getLogger(__name__)


def require_no_val(splits: Collection[str], settings: HeldOutSettings) -> None:
    """Raise ConfigError where a part is to be held out of a set that has a validation set."""
    if settings.holds_out and "val" in splits:
        raise ConfigError(
            f"{settings.held_out_words} holds a part of train out for validation, and there is a validation set: leave the one "
            "(data.val=null, or data.train.… instead of data.root) or the other away"
        )


def with_held_out(splits: Mapping[str, CocoSplit], settings: HeldOutSettings) -> dict[str, CocoSplit]:
    """Return train and val, cut from train where the settings say so. Raises DataError where one of them would be empty."""
    if not settings.holds_out:
        return dict(splits)
    train = splits["train"]
    assert isinstance(train.records, FlatRecords)
    places = places_of(train.records.paths(), settings.cache_folder)
    is_val = held_out_mask(places, settings)
    num_val = int(is_val.sum())
    if num_val in (0, len(is_val)):
        raise DataError(
            f"{settings.held_out_words}: of {len(is_val)} images {num_val} are held out by their bytes, which leaves none to "
            f"{'validate' if num_val == 0 else 'train'} on; take another part, or name a validation set"
        )
    logger.info(
        "%s: %d images to train on, %d to validate on, by the images' bytes",
        settings.held_out_words, len(is_val) - num_val, num_val,
    )  # fmt: skip
    return {
        part: replace(train, records=train.records.take(np.flatnonzero(mask)))
        for part, mask in (("train", ~is_val), ("val", is_val))
    }


def held_out_mask(places: np.ndarray, settings: HeldOutSettings) -> np.ndarray:
    """Return which of the images at ``places`` are held out; NaN is a place of none."""
    if settings.folds is not None:
        return np.floor(places * settings.folds) == settings.fold
    return places < settings.val_part
