"""How many objects each class has, in words, and which classes have none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from winnow.families.detection.formats.records import ImageRecord, columns_of

logger = logging.getLogger(__name__)

_NUM_SHOWN = 20


def objects_of_classes(records: Sequence[ImageRecord], names: Sequence[str]) -> dict[str, int]:
    """Return class → number of its objects, crowds left out."""
    columns = columns_of(records)
    return count_labels(columns.labels[~columns.crowd], names)


def count_labels(labels: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Return class → how often its label is among ``labels``."""
    return dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))


def count_words(counts: Mapping[str, int]) -> str:
    """Return the counts in words; of many classes those with the most and the fewest objects."""
    words = [f"{name} {count}" for name, count in counts.items()]
    if len(words) <= _NUM_SHOWN:
        return ", ".join(words)
    ranked = sorted(counts, key=lambda name: -counts[name])
    half = _NUM_SHOWN // 2
    most, fewest = (", ".join(f"{name} {counts[name]}" for name in part) for part in (ranked[:half], ranked[-half:]))
    return f"of {len(words)} classes the most have {most}; the fewest {fewest}"


def without_object(counts: Mapping[str, int]) -> list[str]:
    """Return the classes that have no object."""
    return [name for name, count in counts.items() if not count]


def log_classes(part: str, counts: Mapping[str, int]) -> None:
    """Log how many objects each class has."""
    logger.info("%-5s objects: %s", part, count_words(counts))


def warn_of_unlearnable(in_file: Mapping[str, int], chosen: Mapping[str, int], how: str) -> None:
    """Warn of classes without an object to train on: in the training set at all, and in the part of it that ``how`` takes."""
    absent = without_object(in_file)
    if absent:
        logger.warning("train has no object of %s, which can't be learnt", _named(absent))
    lost = [name for name in without_object(chosen) if in_file[name]]
    if lost:
        logger.warning("%s leaves no object of %s to train on", how, _named(lost))


def note_unjudged(counts: Mapping[str, int]) -> None:
    """Say which classes have no object to validate on."""
    absent = without_object(counts)
    if absent:
        logger.info("val has no object of %s: no metric counts them", _named(absent))


def _named(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NUM_SHOWN} more classes" if len(names) > _NUM_SHOWN else ""
    return ", ".join(map(repr, names[:_NUM_SHOWN])) + more
