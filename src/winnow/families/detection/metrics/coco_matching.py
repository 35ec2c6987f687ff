"""COCO's evaluation of boxes with arrays: matches all images at once, rank by rank. Knows arrays, not tensors or settings."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""All, small, medium, large: bounds in px², both inclusive, as pycocotools has them."""


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


def evaluate_boxes(
    true: Boxes, is_crowd: Booleans, found: Boxes, scores: Floats, num_classes: int, max_detections: int
) -> tuple[Floats, Floats]:
    """Return (precision (10 IoUs, 101 recalls, classes, 4 areas), recall (10, classes, 4)), −1 where there is no truth.

    Equal to pycocotools bit by bit. ``scores`` (N,) of ``found``; of each image and class the best ``max_detections``
    count, among equal scores the first.
    """
    order, rank = _best(found, scores, num_classes, max_detections)
    found, scores = found.chosen(order), scores[order]
    is_ignored = is_crowd | _is_outside(true.area)
    is_match, matches_ignored = _match(
        _pairs(true, is_crowd, found, rank, num_classes), is_crowd, is_ignored, len(scores)
    )
    does_not_count = matches_ignored | (~is_match & _is_outside(found.area)[:, None])
    precision = np.full((len(IOUS), len(RECALLS), num_classes, len(AREAS)), -1.0)
    recall = np.full((len(IOUS), num_classes, len(AREAS)), -1.0)
    by_score = np.argsort(-scores, kind="stable")
    labels = found.label[by_score]
    for label in range(num_classes):
        chosen = by_score[labels == label]
        for area in range(len(AREAS)):
            num_true = int((~is_ignored[area] & (true.label == label)).sum())
            if num_true:
                ignored = does_not_count[area][:, chosen]
                is_true = is_match[area][:, chosen] & ~ignored
                precision[:, :, label, area], recall[:, label, area] = _curves(is_true, ignored, num_true)
    return precision, recall


def match_boxes(
    true: Boxes, is_ignored: Booleans, found: Boxes, scores: Floats, num_classes: int, max_detections: int
) -> tuple[Integers, Booleans, Booleans]:
    """Return which detections count (K,), the best ``max_detections`` of each image and class, whether each is matched at an
    IoU of 0.5 (K,), and whether that is with an ignored true box (K,): those are matched as crowds are."""
    order, rank = _best(found, scores, num_classes, max_detections)
    pairs = _pairs(true, is_ignored, found.chosen(order), rank, num_classes)
    is_match, matches_ignored = _match(pairs, is_ignored, is_ignored[None], len(order))
    return order, is_match[0, 0], matches_ignored[0, 0]


def _best(found: Boxes, scores: Floats, num_classes: int, max_detections: int) -> tuple[Integers, Integers]:
    """Return the places (K,) of those of each image and class that count, and their ranks (K,) there."""
    order = np.lexsort((-scores, found.label, found.image))
    rank = _position_in_group(found.image[order] * num_classes + found.label[order])
    return order[rank < max_detections], rank[rank < max_detections]


def _is_outside(areas: Floats) -> Booleans:
    """Return (4, N): whose area lies outside each range."""
    return np.asarray((areas < AREAS[:, :1]) | (areas > AREAS[:, 1:]))


def _position_in_group(groups: Integers) -> Integers:
    """Return 0, 1, 2 … within each run of equal numbers."""
    places = np.arange(len(groups))
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return places - np.repeat(starts, np.diff(starts, append=len(groups)))


def _pairs(true: Boxes, is_crowd: Booleans, found: Boxes, rank: Integers, num_classes: int) -> _Pairs:
    true_groups, groups = (boxes.image * num_classes + boxes.label for boxes in (true, found))
    order = np.argsort(true_groups, kind="stable")
    first = np.searchsorted(true_groups[order], groups, side="left")
    counts = np.searchsorted(true_groups[order], groups, side="right") - first
    by_rank = np.argsort(rank, kind="stable")
    counts = counts[by_rank]
    pair_found = np.repeat(by_rank, counts)
    offset = np.arange(len(pair_found)) - np.repeat(np.cumsum(counts) - counts, counts)
    pair_true = order[first[pair_found] + offset]
    iou = _iou(found.xywh[pair_found], true.xywh[pair_true], is_crowd[pair_true])
    keep = iou >= IOUS[0]
    return _Pairs(rank[pair_found][keep], pair_found[keep], pair_true[keep], iou[keep])


def _iou(found: Floats, true: Floats, is_crowd: Booleans) -> Floats:
    """Return the IoU of pairs of xywh boxes; with a crowd, the part of the detection that lies in it."""
    end = np.minimum(found[:, :2] + found[:, 2:], true[:, :2] + true[:, 2:])
    width, height = np.maximum(end - np.maximum(found[:, :2], true[:, :2]), 0).T
    overlap = width * height
    own = found[:, 2] * found[:, 3]
    union = np.where(is_crowd, own, own + true[:, 2] * true[:, 3] - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def _match(pairs: _Pairs, is_crowd: Booleans, is_ignored: Booleans, num_found: int) -> tuple[Booleans, Booleans]:
    """Return per row of ``is_ignored`` (an area range), IoU threshold and detection (4, 10, N): is it matched, and is that
    with an ignored true box.

    Detections choose in the order of their scores: the free true box with the highest IoU, the last one among equals,
    an ignored one only if no other is left; a crowd is always free. Those of one rank belong to different images or
    classes, so they choose at once.
    """
    is_match = np.zeros((len(is_ignored), len(IOUS), num_found), dtype=bool)
    matches_ignored = np.zeros_like(is_match)
    is_taken = np.zeros((len(is_ignored), len(IOUS), len(is_crowd)), dtype=bool)
    bounds = np.flatnonzero(np.diff(pairs.rank, prepend=-1, append=-1))
    for start, end in pairwise(bounds):
        found, true, iou = (column[start:end] for column in pairs[1:])
        first = np.flatnonzero(np.diff(found, prepend=-1))
        is_free = (iou >= IOUS[:, None]) & (~is_taken[:, :, true] | is_crowd[true])
        owner = np.repeat(np.arange(len(first)), np.diff(first, append=len(found)))
        counts = is_free & ~is_ignored[:, None, true]
        has_counting = np.logical_or.reduceat(counts, first, axis=2)[:, :, owner]
        is_open = np.where(has_counting, counts, is_free)
        best = np.maximum.reduceat(np.where(is_open, iou, -1.0), first, axis=2)
        is_best = is_open & (iou == best[:, :, owner])
        last = np.maximum.reduceat(np.where(is_best, np.arange(len(found)), -1), first, axis=2)
        area, threshold, row = np.nonzero(last >= 0)
        chosen = true[last[area, threshold, row]]
        is_taken[area, threshold, chosen] = True
        is_match[area, threshold, found[first[row]]] = True
        matches_ignored[area, threshold, found[first[row]]] = is_ignored[area, chosen]
    return is_match, matches_ignored


def _curves(is_true: Booleans, is_ignored: Booleans, num_true: int) -> tuple[Floats, Floats]:
    """Return (precision (10, 101), recall (10,)) of one class and area from detections (10, N) in the order of their scores."""
    hits = np.cumsum(is_true, axis=1).astype(np.float64)
    misses = np.cumsum(~is_true & ~is_ignored, axis=1).astype(np.float64)
    precision = np.zeros((len(IOUS), len(RECALLS)))
    recall = np.zeros(len(IOUS))
    if hits.shape[1] == 0:
        return precision, recall
    recalls = hits / num_true
    recall[:] = recalls[:, -1]
    envelope = hits / (misses + hits + np.spacing(1))
    envelope = np.maximum.accumulate(envelope[:, ::-1], axis=1)[:, ::-1]
    for row in range(len(IOUS)):
        places = np.searchsorted(recalls[row], RECALLS, side="left")
        reached = places < hits.shape[1]
        precision[row, reached] = envelope[row, places[reached]]
    return precision, recall
