"""What is measured of maps: average precision of lines at chamfer distances (MapTR's protocol), recall, localisation error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from winnow.families.maps.batch import MapBatch
from winnow.families.maps.chamfer import chamfer_distances
from winnow.families.maps.frame import Array
from winnow.families.maps.lines import MapLines, resample
from winnow.families.maps.predictions import MapPredictions

NUM_POINTS = 100
"""Points of a line, found or true, when it is compared."""
THRESHOLDS_M = (0.2, 0.5, 1.0, 1.5)
USUAL, STRICT = (0.5, 1.0, 1.5), (0.2, 0.5, 1.0)
"""What ``map`` and ``map_strict`` are means over."""
AT_THRESHOLDS = tuple(f"map_{threshold}m" for threshold in THRESHOLDS_M)
_LOOSEST = len(THRESHOLDS_M) - 1
JUDGED_AT = THRESHOLDS_M.index(1.0)
"""The place in ``THRESHOLDS_M`` at which samples are ranked and a score threshold is chosen."""
MOST_KEPT = 200
"""Samples whose lines are kept for pictures: those with the worst best F1 at 1 m."""


class Judged(NamedTuple):
    """What is known of one sample: K predictions (score, label, distance in metres to the nearest true line of its class, and at
    which of ``THRESHOLDS_M`` it matches that line), and the number of true lines of each class; its id, the predictions' points
    (K, P, 2) and the true lines, None where not kept."""

    city: int
    scores: Array
    labels: NDArray[np.int64]
    distances: Array
    is_match: NDArray[np.bool_]
    num_true: NDArray[np.int64]
    image_id: int | str = ""
    lines: tuple[NDArray[np.float32], MapLines] | None = None

    @property
    def f1(self) -> float:
        """Return the best F1 at 1 m that any score threshold gives; 1 where nothing is true, as one can leave all out."""
        num_true = int(self.num_true.sum())
        hits = np.cumsum(self.is_match[:, JUDGED_AT])
        return max((2 * hits / (np.arange(1, len(hits) + 1) + num_true)).tolist(), default=0.0) if num_true else 1.0


class MapMetric:
    """Obeys ``protocols.Metric``.

    Of each sample the ``max_lines`` best predictions of all classes together count, whatever their scores. Both sides are
    re-sampled to ``NUM_POINTS`` points, the truth from all its points. A prediction looks at the true line of its class that is
    nearest and at no other; it matches where that is nearer than the threshold and no better prediction took it. AP is the area
    under the precision's envelope; predictions of equal scores count at once. ``map`` is the mean over classes that occur and
    ``USUAL``, ``map_strict`` over ``STRICT``; ``num_classes`` says how many occur. ``recall`` is the part of the true lines that
    is matched at 1.5 m, the mean over classes; ``error_m`` the mean distance of those matches.
    """

    def __init__(self, classes: Sequence[str], cities: Sequence[str], max_lines: int) -> None:
        self._classes, self._cities, self._max_lines = list(classes), list(cities), max_lines
        self._samples: list[Judged] = []

    headlines = ("recall",)

    @property
    def names(self) -> list[str]:
        names = ["map", "map_strict", "recall", "error_m", "num_classes", *AT_THRESHOLDS]
        names += [
            f"{part}_class/{name}" for name in self._classes for part in ("map", "map_strict", "recall", "error_m")
        ]
        return names + ([f"map_city/{city}" for city in self._cities] if len(self._cities) > 1 else [])

    @property
    def worst(self) -> dict[str, float]:
        """Return 0 for what is a part of 1; of errors none is the worst."""
        return {name: 0.0 for name in self.names if not name.startswith(("error_m", "num_classes"))}

    def update(self, predictions: Sequence[MapPredictions], batch: MapBatch) -> None:
        """Add a batch, its predictions on any device."""
        for found, target in zip(predictions, batch.targets, strict=True):
            city = self._cities.index(target.city)
            judged = judge(found, target.lines, len(self._classes), self._max_lines, city)
            points = found.points.detach().float().cpu().numpy()
            order = np.argsort(-found.scores.detach().double().cpu().numpy(), kind="stable")[: self._max_lines]
            self._samples.append(judged._replace(image_id=target.image_id, lines=(points[order], target.lines)))
        if sum(sample.lines is not None for sample in self._samples) > 2 * MOST_KEPT:
            self._drop_lines()

    def _drop_lines(self) -> None:
        drawable = [row for row, sample in enumerate(self._samples) if sample.lines is not None]
        ranked = sorted(drawable, key=lambda row: (self._samples[row].f1, str(self._samples[row].image_id)))
        for row in ranked[MOST_KEPT:]:
            self._samples[row] = self._samples[row]._replace(lines=None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was found and what is true.

        Of N samples, by id: ``image_ids``, ``cities`` (N,), ``num_true`` (N, classes); of their predictions, by score in each
        sample: ``found_image`` (P,), the sample's row, ``scores``, ``labels``, ``distances`` in m to the nearest true line of the
        class, infinite without one, and ``is_match`` (P, T) at the ``thresholds_m`` (T,). Of the ``kept`` worst K (K,): the
        ``points`` (Q, num_points, 2) in m of their predictions, as these lie, and their true lines as ``true_image`` (L,),
        ``true_labels`` (L,), ``true_lengths`` (L,) and ``true_vertices`` (V, 2). And the ``classes``.
        """
        self._drop_lines()
        samples = sorted(self._samples, key=lambda sample: str(sample.image_id))
        rows = np.repeat(np.arange(len(samples), dtype=np.int32), [len(sample.scores) for sample in samples])
        kept = [(row, *sample.lines) for row, sample in enumerate(samples) if sample.lines is not None]
        width = max((points.shape[1] for _, points, _ in kept), default=0)
        none = np.zeros(0)
        return {
            "classes": np.array(self._classes, dtype=np.str_),
            "thresholds_m": np.array(THRESHOLDS_M),
            "image_ids": np.array([str(sample.image_id) for sample in samples], dtype=np.str_),
            "cities": np.array([self._cities[sample.city] for sample in samples], dtype=np.str_),
            "num_true": np.array([sample.num_true for sample in samples], dtype=np.int64).reshape(-1, len(self._classes)),
            "found_image": rows,
            "scores": np.concatenate([none, *(sample.scores for sample in samples)]),
            "labels": np.concatenate([none, *(sample.labels for sample in samples)]).astype(np.int16),
            "distances": np.concatenate([none, *(sample.distances for sample in samples)]),
            "is_match": np.concatenate([np.zeros((0, len(THRESHOLDS_M)), bool), *(sample.is_match for sample in samples)]),
            "kept": np.array([row for row, _, _ in kept], dtype=np.int64),
            "points": np.concatenate([np.zeros((0, width, 2), np.float32), *(points for _, points, _ in kept)]),
            "true_image": np.repeat([row for row, _, _ in kept], [len(true) for _, _, true in kept]).astype(np.int32),
            "true_labels": np.concatenate([none, *(true.labels for _, _, true in kept)]).astype(np.int16),
            "true_lengths": np.concatenate([none, *(np.diff(true.starts) for _, _, true in kept)]).astype(np.int32),
            "true_vertices": np.concatenate([np.zeros((0, 2), np.float32), *(true.vertices for _, _, true in kept)]),
        }  # fmt: skip

    def state(self) -> list[Judged]:
        return list(self._samples)

    def merge(self, state: Sequence[Judged]) -> None:
        self._samples.extend(Judged(*sample) for sample in state)

    def compute(self) -> dict[str, float]:
        of_class = self._class_values(self._samples)
        values = {"num_classes": float(len(of_class))}
        values |= {name: _mean(value[name] for value in of_class.values()) for name in ("map", "map_strict", "recall")}
        values |= {name: _mean(value[name] for value in of_class.values()) for name in AT_THRESHOLDS}
        matched = self._matched_distances(self._samples)
        values["error_m"] = float(np.mean(matched)) if len(matched) else float("nan")
        for label, numbers in of_class.items():
            parts = ("map", "map_strict", "recall", "error_m")
            values |= {f"{part}_class/{self._classes[label]}": numbers[part] for part in parts}
        if len(self._cities) > 1:
            for index, city in enumerate(self._cities):
                own = self._class_values([sample for sample in self._samples if sample.city == index])
                values[f"map_city/{city}"] = _mean(value["map"] for value in own.values())
        return {name: value for name, value in values.items() if not np.isnan(value)}

    def _class_values(self, samples: Sequence[Judged]) -> dict[int, dict[str, float]]:
        """Return label → numbers by name, of the classes that occur in ``samples``."""
        num_true = sum((sample.num_true for sample in samples), np.zeros(len(self._classes), np.int64))
        return {
            label: self._numbers(samples, label, int(num_true[label])) for label in np.flatnonzero(num_true).tolist()
        }

    def _numbers(self, samples: Sequence[Judged], label: int, num_true: int) -> dict[str, float]:
        own = [sample.labels == label for sample in samples]
        scores = np.concatenate([sample.scores[rows] for sample, rows in zip(samples, own, strict=True)])
        is_match = np.concatenate([sample.is_match[rows] for sample, rows in zip(samples, own, strict=True)])
        aps = {
            threshold: average_precision(scores, is_match[:, column], num_true)
            for column, threshold in enumerate(THRESHOLDS_M)
        }
        matched = self._matched_distances(samples, label)
        return {
            "map": _mean(aps[threshold] for threshold in USUAL),
            "map_strict": _mean(aps[threshold] for threshold in STRICT),
            "recall": float(is_match[:, _LOOSEST].sum() / num_true),
            "error_m": float(np.mean(matched)) if len(matched) else float("nan"),
            **dict(zip(AT_THRESHOLDS, aps.values(), strict=True)),
        }

    def _matched_distances(self, samples: Sequence[Judged], label: int | None = None) -> Array:
        """Return the distances of what matches at the loosest threshold, sorted, so that their sum has one order."""
        parts = [
            sample.distances[sample.is_match[:, _LOOSEST] & ((sample.labels == label) | (label is None))]
            for sample in samples
        ]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0)


def judge(found: MapPredictions, true: MapLines, num_classes: int, max_lines: int, city: int) -> Judged:
    """Return what is known of one sample, see ``MapMetric``."""
    scores = found.scores.detach().double().cpu().numpy()
    order = np.argsort(-scores, kind="stable")[:max_lines]
    scores, labels = scores[order], found.labels.cpu().numpy()[order]
    points = found.points.detach().double().cpu().numpy()[order]
    distances = np.full(len(order), np.inf)
    is_match = np.zeros((len(order), len(THRESHOLDS_M)), dtype=bool)
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        lines = true.of_class(label)
        if not len(rows) or not lines:
            continue
        table = chamfer_distances(_resampled(points[rows]), _resampled(lines), THRESHOLDS_M[-1])
        nearest = table.argmin(axis=1)
        distances[rows] = table[np.arange(len(rows)), nearest]
        is_match[rows] = match_in_order(distances[rows], nearest)
    return Judged(city, scores, labels, distances, is_match, np.bincount(true.labels, minlength=num_classes))


def match_in_order(distances: Array, nearest: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (K, T): at which thresholds each of K predictions, the best first, matches the true line that is nearest to it."""
    is_match = distances[:, None] < np.array(THRESHOLDS_M)
    for column in is_match.T:
        rows = np.flatnonzero(column)
        first_of_each = np.unique(nearest[rows], return_index=True)[1]
        taken = np.delete(rows, first_of_each)
        column[taken] = False
    return is_match


def average_precision(scores: Array, is_match: NDArray[np.bool_], num_true: int) -> float:
    """Return the area under the envelope of precision over recall; ``num_true`` is at least 1."""
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(is_match[order])
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))
    precision, recall = hits[ends] / (ends + 1), hits[ends] / num_true
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _resampled(lines: Iterable[Array | NDArray[np.float32]]) -> Array:
    return np.stack([resample(line, NUM_POINTS) for line in lines])


def _mean(values: Iterable[float]) -> float:
    """Return the mean, NaN of nothing."""
    kept = list(values)
    return float(np.mean(kept)) if kept else float("nan")
