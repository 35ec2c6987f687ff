"""KAIST's log-average miss rate in the reasonable setting, from arrays. Knows no tensors and no settings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from winnow.families.detection.metrics.coco_matching import Booleans, Boxes, Floats, match_boxes

REFERENCES = np.array([0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.0000])
"""False positives per image at which the miss rate is read: powers of ten, rounded as the public evaluation has them."""
MIN_HEIGHT = 55
BORDER = np.array([5, 5, 635, 507])
"""x1, y1, x2, y2 in pixels of KAIST's 640×512 images: a person that leaves it by a side is ignored, one that touches it
counts."""
MIN_SCORE = 0.001
MAX_DETECTIONS = 1000
NOTHING_FOUND = 100.0


class Judged(NamedTuple):
    """Detections in the order of their scores, with the number of the image of each (K,), whether it is a hit or a false positive
    (K,), neither where it matches what is ignored; and the number of the image of each person that counts (M,)."""

    image: np.ndarray
    is_hit: Booleans
    is_false: Booleans
    person_image: np.ndarray


def is_reasonable(boxes: Floats) -> Booleans:
    """Return which of the persons with ``boxes`` (M, 4) xywh are high enough and inside the border."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    inside = (corners[:, :2] >= BORDER[:2]).all(axis=1) & (corners[:, 2:] <= BORDER[2:]).all(axis=1)
    return np.asarray(inside & (boxes[:, 3] >= MIN_HEIGHT))


def judge(persons: Boxes, is_ignored: Booleans, found: Boxes, scores: Floats) -> Judged:
    """Match ``found`` with ``persons`` at an IoU of 0.5, with those that count before those ``is_ignored``, which take any number
    of detections by the part of the detection that lies in them."""
    keep = np.flatnonzero(scores >= MIN_SCORE)
    found, scores = found.chosen(keep), scores[keep]
    order, is_match, matches_ignored = match_boxes(persons, is_ignored, found, scores, 1, MAX_DETECTIONS)
    by_score = np.argsort(-scores[order], kind="stable")
    image, is_match, matches_ignored = found.image[order][by_score], is_match[by_score], matches_ignored[by_score]
    return Judged(image, is_match & ~matches_ignored, ~is_match, persons.image[~is_ignored])


def log_average_miss_rate(judged: Judged, is_wanted: Booleans) -> float | None:
    """Return the geometric mean of the miss rates at the reference points, in percent, over the images (N,) that are wanted, with
    and without persons; None where no person counts or nothing was found.

    Where even the first detection has more false positives per image than a reference point allows, the miss rate there is 1.
    """
    curve = miss_rate_curve(judged, is_wanted)
    if curve is None:
        return None
    false_per_image, missed = curve
    last = np.searchsorted(false_per_image, REFERENCES, side="right")
    rates = np.concatenate([[1.0], missed])[last]
    return float(100 * np.exp(np.log(np.maximum(rates, 1e-10)).mean()))


def miss_rate_curve(judged: Judged, is_wanted: Booleans) -> tuple[Floats, Floats] | None:
    """Return false positives per image and the miss rate, a part of 1, after each detection, the surest first; None where no
    person counts or nothing was found."""
    chosen = is_wanted[judged.image]
    num_persons = int(is_wanted[judged.person_image].sum())
    if not num_persons or not chosen.any():
        return None
    missed = 1 - np.cumsum(judged.is_hit[chosen]) / num_persons
    return np.cumsum(judged.is_false[chosen]) / is_wanted.sum(), missed
