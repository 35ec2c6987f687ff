"""How many objects each class has, in words, and which classes have none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from winnow.data.balance import Objects, epoch_length, repeat_factors
from winnow.data.plan import LoadingSettings
from winnow.families.detection.formats.records import ImageRecord, columns_of

logger = logging.getLogger(__name__)

_NUM_SHOWN = 20


def objects_of_classes(records: Sequence[ImageRecord], names: Sequence[str]) -> dict[str, int]:
    """Return class → number of its objects, crowds left out."""
    columns = columns_of(records)
    return count_labels(columns.labels[~columns.crowd], names)


def objects_to_learn(records: Sequence[ImageRecord], num_classes: int) -> Objects:
    """Return the objects of ``records``, crowds left out."""
    columns = columns_of(records)
    return Objects(columns.owners[~columns.crowd], columns.labels[~columns.crowd], columns.num, num_classes)


def balance(records: Sequence[ImageRecord], names: Sequence[str], loading: LoadingSettings) -> np.ndarray | None:
    """Return how often each of ``records`` comes in an epoch, None where classes are not balanced; logged."""
    if loading.class_balance == "none" or loading.overfit is not None:
        return None
    objects = objects_to_learn(records, len(names))
    factors = repeat_factors(objects, loading.balance_threshold)
    images = objects.images_of_classes
    rarest = min(np.flatnonzero(images).tolist(), key=lambda label: images[label], default=None)
    if rarest is None or factors.max() == 1:
        logger.warning(
            "training.class_balance=repeat_factor repeats nothing: no class is in less than training.balance_threshold=%g of the "
            "images%s", loading.balance_threshold,
            "" if rarest is None else f", the rarest, {names[rarest]!r}, in {images[rarest] / len(factors):.3g}",
        )  # fmt: skip
    else:
        logger.info(
            "train class_balance=repeat_factor: an epoch has %d samples of %d images; those with %r, %d in all, come %.3g times",
            epoch_length(factors), len(factors), names[rarest], images[rarest], factors.max(),
        )  # fmt: skip
    return factors


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
