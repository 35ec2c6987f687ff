"""The sections of a run's page about maps: classes, precision and recall, and lines in pictures, from stored arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow.errors import WinnowError
from winnow.families.maps.batch import MapBatch
from winnow.families.maps.frame import Array
from winnow.families.maps.metric import JUDGED_AT, THRESHOLDS_M, USUAL, average_precision
from winnow.families.maps.pictures import sample_picture
from winnow.families.pictures import jpeg
from winnow.sections import Bars, Block, Cell, Gallery, Lines, Picture, Section, Series, Table, Text

NUM_WORST, NUM_MEDIAN = 6, 2
_STEPS_M = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
_MOST_PLACES = 200

Arrays = Mapping[str, NDArray[Any]]


def map_sections(arrays: Arrays, data: Any, num_pictures: int) -> list[Section]:
    """Return the sections of what ``MapMetric.arrays`` gave; ``data`` gives the cameras' images, None where it can't be had.
    Raises KeyError or ValueError where the arrays don't belong together."""
    _require_fitting(arrays)
    if not arrays["num_true"].sum():
        return [Section("Lines", [Text("No validation sample has a line: there is nothing to compare with.")])]
    return [
        Section("Classes", _classes(arrays)),
        Section("Precision and recall", _curves(arrays)),
        Section("Lines from above and in the front camera", _pictures(arrays, data, num_pictures)),
    ]


def best_threshold(arrays: Arrays) -> float:
    """Return the score from which on F1 at 1 m is best, all classes together; 0.5 where nothing matches."""
    _require_fitting(arrays)
    return _best(arrays["scores"], arrays["is_match"][:, JUDGED_AT], int(arrays["num_true"].sum()))[0]


def worst_samples(arrays: Arrays) -> list[int]:
    """Return the rows of the samples whose lines are kept, the worst F1 at 1 m at the best threshold first."""
    _require_fitting(arrays)
    f1 = _f1_of_samples(arrays)
    return sorted(arrays["kept"].tolist(), key=lambda row: (f1[row], row))


def _require_fitting(arrays: Arrays) -> None:
    count, num_found, num_kept = len(arrays["image_ids"]), len(arrays["scores"]), len(arrays["true_image"])
    fitting = {
        "num_true": (count, len(arrays["classes"])), "cities": (count,), "found_image": (num_found,), "labels": (num_found,),
        "distances": (num_found,), "is_match": (num_found, len(THRESHOLDS_M)), "true_labels": (num_kept,),
        "true_lengths": (num_kept,), "true_vertices": (int(arrays["true_lengths"].sum()), 2),
    }  # fmt: skip
    for name, shape in fitting.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} have shape {arrays[name].shape}, not {shape}")
    for name, limit in (
        ("found_image", count), ("kept", count), ("true_image", count), ("labels", len(arrays["classes"])),
        ("true_labels", len(arrays["classes"])),
    ):  # fmt: skip
        if arrays[name].size and not (arrays[name].min() >= 0 and arrays[name].max() < limit):
            raise ValueError(f"{name} must lie in [0, {limit})")
    of_kept = int(np.isin(arrays["found_image"], arrays["kept"]).sum())
    if arrays["points"].ndim != 3 or len(arrays["points"]) != of_kept or np.isnan(arrays["scores"]).any():
        raise ValueError(
            f"points have shape {arrays['points'].shape}, of {of_kept} predictions, or scores are no numbers"
        )


def _best(scores: Array, is_match: NDArray[np.bool_], num_true: int) -> tuple[float, float, float, float]:
    """Return the score threshold of the best F1, F1, precision and recall there; 0.5 and 0 where nothing matches."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_match[order])
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    if not len(hits) or not hits[-1] or not num_true:
        return 0.5, 0.0, 0.0, 0.0
    precision, recall = hits[ends] / (ends + 1), hits[ends] / num_true
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    place = int(f1.argmax())
    return float(scores[order][ends[place]]), float(f1[place]), float(precision[place]), float(recall[place])


def _f1_of_samples(arrays: Arrays) -> NDArray[np.float64]:
    """Return each sample's F1 at 1 m at the best threshold; 1 where nothing is there and nothing was found."""
    count = len(arrays["image_ids"])
    is_sure = (
        arrays["scores"] >= _best(arrays["scores"], arrays["is_match"][:, JUDGED_AT], int(arrays["num_true"].sum()))[0]
    )
    rows = arrays["found_image"][is_sure]
    found = np.bincount(rows, minlength=count)
    hits = np.bincount(rows, weights=arrays["is_match"][is_sure, JUDGED_AT], minlength=count)
    both = found + arrays["num_true"].sum(axis=1)
    return np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0)


def _of_class(arrays: Arrays, label: int) -> tuple[Array, NDArray[np.bool_], Array, int]:
    own = arrays["labels"] == label
    return (
        arrays["scores"][own],
        arrays["is_match"][own],
        arrays["distances"][own],
        int(arrays["num_true"][:, label].sum()),
    )


def _classes(arrays: Arrays) -> list[Block]:
    names = [str(name).replace("_", " ") for name in arrays["classes"]]
    rows: list[tuple[Cell, ...]] = []
    shares: list[tuple[Cell, ...]] = []
    present, bars = list[str](), list[float]()
    for label, name in enumerate(names):
        scores, is_match, distances, num_true = _of_class(arrays, label)
        if not num_true:
            continue
        aps = [average_precision(scores, is_match[:, column], num_true) for column in range(len(THRESHOLDS_M))]
        usual = float(np.mean([ap for ap, metres in zip(aps, THRESHOLDS_M, strict=True) if metres in USUAL]))
        threshold, f1, precision, recall = _best(scores, is_match[:, JUDGED_AT], num_true)
        rows.append((name, num_true, usual, *aps, threshold, f1, precision, recall))
        present.append(name)
        bars.append(usual)
        matched = distances[is_match[:, -1]]
        shares.append((name, len(matched), *[float(part) for part in _shares(matched)]))
    columns = (
        "class", "true lines", "AP", *(f"at {metres:g} m" for metres in THRESHOLDS_M), "best threshold", "F1 there, 1 m",
        "precision", "recall",
    )  # fmt: skip
    steps = (f"below {metres:g} m" for metres in _STEPS_M[1:])
    absent = [name for name in names if name not in present]
    return [
        Bars("Average precision by class", present, bars),
        Table(columns, rows),
        Table(
            ("class", "matched at 1.5 m", *steps), shares,
            "How far the matched lines are off: the share of them below each distance",
        ),
        *([Text(f"No validation sample shows: {', '.join(absent)}.")] if absent else []),
        *_cities(arrays),
    ]  # fmt: skip


def _shares(distances: Array) -> list[float]:
    return [float((distances < metres).mean()) if len(distances) else float("nan") for metres in _STEPS_M[1:]]


def _cities(arrays: Arrays) -> list[Block]:
    f1 = _f1_of_samples(arrays)
    cities = sorted({str(city) for city in arrays["cities"]})
    if len(cities) < 2:
        return []
    of_city = {city: arrays["cities"] == city for city in cities}
    rows = [
        (city, int(own.sum()), int(arrays["num_true"][own].sum()), float(f1[own].mean()))
        for city, own in of_city.items()
    ]
    return [Table(("city", "samples", "true lines", "mean F1 of a sample, 1 m"), rows)]


def _curves(arrays: Arrays) -> list[Block]:
    series = []
    for label, name in enumerate(arrays["classes"]):
        scores, is_match, _, num_true = _of_class(arrays, label)
        if num_true and len(scores):
            order = np.argsort(-scores, kind="stable")
            hits = np.cumsum(is_match[order, JUDGED_AT])
            chosen = np.unique(np.linspace(0, len(hits) - 1, _MOST_PLACES).round().astype(np.int64))
            precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
            series.append(
                Series(str(name).replace("_", " "), (hits[chosen] / num_true).tolist(), precision[chosen].tolist())
            )
    return [
        Text(f"One threshold for all classes: {best_threshold(arrays):.3f}, where F1 at 1 m is best."),
        Lines("Precision by recall at 1 m", "recall", "precision", series, (0.0, 1.0)),
    ]


def _pictures(arrays: Arrays, data: Any, num_pictures: int) -> list[Block]:
    order, f1, threshold = worst_samples(arrays), _f1_of_samples(arrays), best_threshold(arrays)
    worst = [row for row in order if f1[row] < 1][:num_pictures]
    middle = [row for row in order if row not in worst]
    middle = middle[len(middle) // 2 :][:NUM_MEDIAN]
    seen = _batches([str(arrays["image_ids"][row]) for row in (*worst, *middle)], data)
    legend = (
        "Above: what is true; below: what was found. Yellow: dividers, blue: crossings, green: boundaries. The car is at the "
        "cross and looks up."
    )
    blocks: list[Block] = [] if seen else [Text("The images can't be read here, so lines are shown from above alone.")]
    for title, rows in (("the worst samples", worst), ("samples in the middle of those kept", middle)):
        if rows:
            pictures = [_picture(arrays, row, threshold, f1[row], seen) for row in rows]
            blocks.append(Gallery(pictures, f"Here: {title}, at a score of at least {threshold:.3f}. {legend}"))
    return blocks


def _picture(arrays: Arrays, row: int, threshold: float, f1: float, seen: Mapping[str, MapBatch]) -> Picture:
    name = str(arrays["image_ids"][row])
    true, found = true_lines(arrays, row), found_lines(arrays, row, threshold)
    caption = f"{name}, {arrays['cities'][row]}: {len(true)} true, {len(found)} found, F1 {f1:.2f}"
    return Picture(caption, jpeg(sample_picture(true, found, seen.get(name))))


def true_lines(arrays: Arrays, row: int) -> list[tuple[Array, int]]:
    """Return the true lines (P, 2) in m of a kept sample with their labels."""
    ends = np.cumsum(arrays["true_lengths"])
    return [
        (
            arrays["true_vertices"][ends[line] - arrays["true_lengths"][line] : ends[line]],
            int(arrays["true_labels"][line]),
        )
        for line in np.flatnonzero(arrays["true_image"] == row)
    ]


def found_lines(arrays: Arrays, row: int, threshold: float) -> list[tuple[Array, int]]:
    """Return the found lines of a kept sample of at least ``threshold``: at most max(10, 2 × true ones), the surest."""
    of_kept = np.flatnonzero(np.isin(arrays["found_image"], arrays["kept"]))
    own = np.flatnonzero(arrays["found_image"][of_kept] == row)
    most = max(10, 2 * int(arrays["num_true"][row].sum()))
    sure = own[arrays["scores"][of_kept[own]] >= threshold][:most]
    return [(arrays["points"][line], int(arrays["labels"][of_kept[line]])) for line in sure]


def _batches(image_ids: Sequence[str], data: Any) -> dict[str, MapBatch]:
    """Return id → the sample as a batch of one, of those that can be read."""
    if not hasattr(data, "val_batches_of"):
        return {}
    try:
        return {str(batch.targets[0].image_id): batch for batch in data.val_batches_of(image_ids, data.image_size)}
    except WinnowError:
        return {}
