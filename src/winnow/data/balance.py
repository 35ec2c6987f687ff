"""Rare classes: which images come more than once in an epoch, and which make a subset that has some of each class."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Objects(NamedTuple):
    """The objects to learn of ``num_images``: ``owners`` (M,) says in which image each is, ``labels`` (M,) its class, of
    ``num_classes``."""

    owners: np.ndarray
    labels: np.ndarray
    num_images: int
    num_classes: int

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return image and class of each class that is in an image, once, in the order of the images."""
        found = np.unique(self.owners * max(self.num_classes, 1) + self.labels)
        return np.divmod(found, max(self.num_classes, 1))

    @property
    def images_of_classes(self) -> np.ndarray:
        """Return in how many images each class is."""
        return np.bincount(self.pairs[1], minlength=self.num_classes)


def repeat_factors(objects: Objects, threshold: float) -> np.ndarray:
    """Return (num_images,) how often each image is to come in an epoch, at least once: the largest of max(1, √(threshold / f))
    over its classes, each of which is in a part f of the images (repeat factor sampling; Gupta, Dollár, Girshick: LVIS, CVPR
    2019, https://arxiv.org/abs/1908.03195).
    """
    images, labels = objects.pairs
    with np.errstate(divide="ignore"):
        of_class = np.maximum(1.0, np.sqrt(threshold * objects.num_images / objects.images_of_classes))
    factors = np.ones(objects.num_images)
    np.maximum.at(factors, images, of_class[labels])
    return factors


def epoch_length(factors: np.ndarray) -> int:
    """Return how many samples an epoch has, the same in each."""
    return math.ceil(factors.sum() - 1e-9)


def draw_epoch(factors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of an epoch in order, and for each which time it is that its image comes, from 0.

    An image comes as often as its factor says on average: what its fraction makes of it is drawn for all at once, by marks at
    equal distances on the line of all factors, so the number of samples is always ``epoch_length``.
    """
    length = epoch_length(factors)
    ends = np.cumsum(factors)
    marks = (np.arange(length) + rng.random()) * (ends[-1] / length)
    images = np.minimum(np.searchsorted(ends, marks, side="right"), len(factors) - 1)
    nth = np.arange(length) - np.searchsorted(images, images, side="left")
    order = rng.permutation(length)
    return images[order], nth[order]


def stratified_subset(objects: Objects, size: int, seed: int) -> np.ndarray:
    """Return ``size`` images, ascending, in which each class, and having no object, is about as frequent as in all of them, and
    each class is there while there is room: the rarest choose first, an image of each, then their share."""
    rng = np.random.default_rng(seed)
    images, labels = objects.pairs
    # Images without an object are a class of their own.
    empty = np.setdiff1d(np.arange(objects.num_images), images)
    images, labels = np.concatenate([images, empty]), np.concatenate([labels, np.full(len(empty), objects.num_classes)])
    counts = np.bincount(labels, minlength=objects.num_classes + 1)
    shares = np.round(counts * (size / objects.num_images)).astype(np.int64)
    rank = rng.permutation(objects.num_images)
    by_rank = np.lexsort((rank[images], labels))
    starts = np.concatenate([[0], np.cumsum(counts)])
    is_chosen = np.zeros(objects.num_images, bool)
    room = size
    for wanted in (np.minimum(counts, 1), shares):
        for label in np.argsort(counts, kind="stable").tolist():
            own = images[by_rank[starts[label] : starts[label + 1]]]
            lacking = min(int(wanted[label]) - int(is_chosen[own].sum()), room)
            if lacking > 0:
                taken = own[~is_chosen[own]][:lacking]
                is_chosen[taken] = True
                room -= len(taken)
    rest = np.argsort(rank)
    is_chosen[rest[~is_chosen[rest]][:room]] = True
    return np.flatnonzero(is_chosen)
