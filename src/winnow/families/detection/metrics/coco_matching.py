"""COCO's matching of boxes with arrays, all images at once, rank by rank. Knows arrays, not tensors or settings."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

MIN_IOU = 0.5


class Boxes(NamedTuple):
    """N boxes of many images: ``image`` their number in evaluation order, ``label`` the class, ``xywh`` (N, 4), ``area``
    px²."""

    image: Integers
    label: Integers
    xywh: Floats
    area: Floats

    def chosen(self, places: Integers) -> Boxes:
        return Boxes(self.image[places], self.label[places], self.xywh[places], self.area[places])


class _Pairs(NamedTuple):
    """Detections and true boxes of one image and class, sorted by the detection's ``rank`` there, then by detection."""

    rank: Integers
    found: Integers
    true: Integers
    iou: Floats


def match_boxes(
    true: Boxes, is_ignored: Booleans, found: Boxes, scores: Floats, num_classes: int, max_detections: int
) -> tuple[Integers, Booleans, Booleans]:
    """Return which detections count (K,), the best ``max_detections`` of each image and class, whether each is matched at an
    IoU of 0.5 (K,), and whether that is with an ignored true box (K,): those are matched as crowds are."""
    order, rank = _best(found, scores, num_classes, max_detections)
    pairs = _pairs(true, is_ignored, found.chosen(order), rank, num_classes)
    return order, *_match(pairs, is_ignored, len(order))


def _best(found: Boxes, scores: Floats, num_classes: int, max_detections: int) -> tuple[Integers, Integers]:
    """Return the places (K,) of those of each image and class that count, and their ranks (K,) there."""
    order = np.lexsort((-scores, found.label, found.image))
    rank = _position_in_group(found.image[order] * num_classes + found.label[order])
    return order[rank < max_detections], rank[rank < max_detections]


def _position_in_group(groups: Integers) -> Integers:
    """Return 0, 1, 2 … within each run of equal numbers."""
    places = np.arange(len(groups))
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return places - np.repeat(starts, np.diff(starts, append=len(groups)))


def _pairs(true: Boxes, is_ignored: Booleans, found: Boxes, rank: Integers, num_classes: int) -> _Pairs:
    true_groups, groups = (boxes.image * num_classes + boxes.label for boxes in (true, found))
    order = np.argsort(true_groups, kind="stable")
    first = np.searchsorted(true_groups[order], groups, side="left")
    counts = np.searchsorted(true_groups[order], groups, side="right") - first
    by_rank = np.argsort(rank, kind="stable")
    counts = counts[by_rank]
    pair_found = np.repeat(by_rank, counts)
    offset = np.arange(len(pair_found)) - np.repeat(np.cumsum(counts) - counts, counts)
    pair_true = order[first[pair_found] + offset]
    iou = _iou(found.xywh[pair_found], true.xywh[pair_true], is_ignored[pair_true])
    keep = iou >= MIN_IOU
    return _Pairs(rank[pair_found][keep], pair_found[keep], pair_true[keep], iou[keep])


def _iou(found: Floats, true: Floats, is_ignored: Booleans) -> Floats:
    """Return the IoU of pairs of xywh boxes; with an ignored one, the part of the detection that lies in it."""
    end = np.minimum(found[:, :2] + found[:, 2:], true[:, :2] + true[:, 2:])
    width, height = np.maximum(end - np.maximum(found[:, :2], true[:, :2]), 0).T
    overlap = width * height
    own = found[:, 2] * found[:, 3]
    union = np.where(is_ignored, own, own + true[:, 2] * true[:, 3] - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def _match(pairs: _Pairs, is_ignored: Booleans, num_found: int) -> tuple[Booleans, Booleans]:
    """Return per detection (N,): is it matched, and is that with an ignored true box.

    Detections choose in the order of their scores: the free true box with the highest IoU, the last one among equals, an
    ignored one only if no other is left; an ignored one is always free, as crowds are. Those of one rank belong to different
    images or classes, so they choose at once.
    """
    is_match = np.zeros(num_found, dtype=bool)
    matches_ignored = np.zeros_like(is_match)
    is_taken = np.zeros(len(is_ignored), dtype=bool)
    bounds = np.flatnonzero(np.diff(pairs.rank, prepend=-1, append=-1))
    for start, end in pairwise(bounds):
        found, true, iou = (column[start:end] for column in pairs[1:])
        first = np.flatnonzero(np.diff(found, prepend=-1))
        is_free = ~is_taken[true] | is_ignored[true]
        owner = np.repeat(np.arange(len(first)), np.diff(first, append=len(found)))
        counts = is_free & ~is_ignored[true]
        has_counting = np.logical_or.reduceat(counts, first)[owner]
        is_open = np.where(has_counting, counts, is_free)
        best = np.maximum.reduceat(np.where(is_open, iou, -1.0), first)
        is_best = is_open & (iou == best[owner])
        last = np.maximum.reduceat(np.where(is_best, np.arange(len(found)), -1), first)
        rows = np.flatnonzero(last >= 0)
        chosen = true[last[rows]]
        is_taken[chosen] = True
        is_match[found[first[rows]]] = True
        matches_ignored[found[first[rows]]] = is_ignored[chosen]
    return is_match, matches_ignored
