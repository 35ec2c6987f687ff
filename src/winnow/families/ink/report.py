"""Ink's sections of a run's page: skeletons, key points and tiles, from stored arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow.errors import WinnowError
from winnow.families.ink.batch import KEY_POINT_KINDS
from winnow.families.ink.metric import CORNER, LOWEST_PEAK, num_matched
from winnow.families.ink.pictures import tile_picture
from winnow.families.pictures import jpeg
from winnow.sections import Bars, Block, Gallery, Lines, Picture, Section, Series, Table, Text

NUM_WORST, NUM_MEDIAN = 8, 4
THRESHOLDS = np.linspace(LOWEST_PEAK, 0.9, 9)

Arrays = Mapping[str, NDArray[Any]]


def ink_sections(arrays: Arrays, data: Any, num_pictures: int) -> list[Section]:
    """Return the sections of what ``InkMetric.arrays`` gave; ``data`` gives the tiles' ink, None where it can't be had. Raises
    KeyError or ValueError where the arrays don't belong together."""
    _require_fitting(arrays)
    if not len(arrays["image_ids"]):
        return [Section("Skeletons", [Text("No tile was evaluated.")])]
    return [
        Section("Skeletons", _skeletons(arrays)),
        Section("Key points", _key_points(arrays)),
        Section("Tiles", _tiles(arrays, data, num_pictures)),
    ]


def worst_tiles(arrays: Arrays) -> list[int]:
    """Return the rows of the tiles whose skeletons are kept, the worst F1 within 1 px first."""
    _require_fitting(arrays)
    f1 = _f1_of_tiles(arrays)
    return sorted(arrays["kept"].tolist(), key=lambda row: (f1[row], row))


def _require_fitting(arrays: Arrays) -> None:
    count, kept, size = len(arrays["image_ids"]), arrays["kept"], arrays["tile_size"]
    num_bytes = -(-int(size.prod()) // 8) if size.shape == (2,) else -1
    fitting = {
        "counts": (count, 5), "has_full_labels": (count,), "true_skeletons": (len(kept), num_bytes),
        "found_skeletons": (len(kept), num_bytes), "found_scores": (len(arrays["found_points"]),),
    }  # fmt: skip
    for name, shape in fitting.items():
        if arrays[name].shape != shape and not (name.endswith("skeletons") and not len(kept)):
            raise ValueError(f"{name} have shape {arrays[name].shape}, not {shape}")
    limits = [count, len(KEY_POINT_KINDS), *size.tolist()]
    for name in ("true_points", "found_points"):
        points = arrays[name]
        if points.ndim != 2 or points.shape[1] != 4 or not ((points >= 0) & (points < np.maximum(limits, 1))).all():
            raise ValueError(f"{name} lie outside of the tiles")
    if len(kept) and not (kept.min() >= 0 and kept.max() < count):
        raise ValueError("kept names tiles that are not there")
    if not np.isfinite(arrays["found_scores"]).all():
        raise ValueError("found_scores are no numbers")


def _f1_of_tiles(arrays: Arrays) -> NDArray[np.float64]:
    found, true, _, near_true, near_found = arrays["counts"].T.astype(np.float64)
    return np.where(found + true == 0, 1.0, _f1(near_true, found, near_found, true))


def _f1(near_true: Any, found: Any, near_found: Any, true: Any) -> Any:
    """Return F1 of precision ``near_true / found`` and recall ``near_found / true``, 0 where nothing fits."""
    precision, recall = near_true / np.maximum(found, 1), near_found / np.maximum(true, 1)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def _skeletons(arrays: Arrays) -> list[Block]:
    found, true, both, near_true, near_found = arrays["counts"].sum(axis=0).tolist()
    rows = [
        ("pixel by pixel", both / max(found, 1), both / max(true, 1), float(_f1(both, found, both, true))),
        ("within 1 px", near_true / max(found, 1), near_found / max(true, 1), float(_f1(near_true, found, near_found, true))),
    ]  # fmt: skip
    f1 = np.sort(_f1_of_tiles(arrays))
    share = (np.arange(len(f1)) + 0.5) / len(f1)
    threshold = float(arrays["skeleton_threshold"])
    return [
        Text(
            f"{len(f1):,} tiles with {true:,} true pixels of centre-line; {found:,} were found, of a probability of at least "
            f"{threshold:g}."
        ),
        Table(("skeleton", "precision", "recall", "F1"), rows),
        Lines(
            "F1 within 1 px, from the worst tile to the best", "share of the tiles", "F1",
            [Series("F1", share.tolist(), f1.tolist())], (0.0, 1.0),
        ),
        Table(("F1 of a tile", ""), [(name, float(np.quantile(f1, at))) for name, at in _QUANTILES.items()]),
    ]  # fmt: skip


_QUANTILES = {"the worst": 0.0, "a tenth is below": 0.1, "half is below": 0.5, "nine tenths are below": 0.9}


def _key_points(arrays: Arrays) -> list[Block]:
    if not arrays["is_full"]:
        return [Text("This model has no heads for key points: it learns skeletons and directions only.")]
    chosen = float(arrays["key_point_threshold"])
    rows, series = [], []
    for kind, name in enumerate(KEY_POINT_KINDS):
        num_true, by_threshold = _matches(arrays, kind, [*THRESHOLDS.tolist(), chosen])
        if num_true is None:
            continue
        f1 = [float(_f1(hits, found, hits, num_true)) for found, hits in by_threshold]
        (found, hits), words = by_threshold[-1], name.replace("_", " ")
        best = int(np.argmax(f1[:-1]))
        rows.append((
            words, num_true, found, hits / found if found else None, hits / num_true if num_true else None, f1[-1],
            float(THRESHOLDS[best]), f1[best],
        ))  # fmt: skip
        series.append(Series(words, THRESHOLDS.tolist(), f1[:-1]))
    columns = ("key point", "true", "found", "precision", "recall", "F1", "best threshold", "F1 there")
    return [
        Text(
            f"Peaks of a score of at least {chosen:g} (evaluation.key_point_threshold), matched with the true ones one to one "
            "within 2 px."
        ),
        Bars("F1 by kind", [str(row[0]) for row in rows], [float(row[5]) for row in rows]),
        Lines("F1 by threshold", "score threshold", "F1", series, (0.0, 1.0)),
        Table(columns, rows),
    ]


def _matches(arrays: Arrays, kind: int, thresholds: Sequence[float]) -> tuple[int | None, list[tuple[int, int]]]:
    """Return how many key points of a kind are true, and per threshold how many are found and how many of these match; None where
    no tile knows them."""
    known = np.flatnonzero(arrays["has_full_labels"] | (kind != CORNER))
    true, found, scores = arrays["true_points"], arrays["found_points"], arrays["found_scores"]
    if not len(known):
        return None, []
    of_true, of_found = (
        (true[:, 1] == kind) & np.isin(true[:, 0], known),
        (found[:, 1] == kind) & np.isin(found[:, 0], known),
    )
    true, found, scores = true[of_true], found[of_found], scores[of_found]
    counts = []
    for threshold in thresholds:
        sure = found[scores >= np.float32(threshold)]
        tiles = np.intersect1d(sure[:, 0], true[:, 0]).tolist()
        hits = sum(num_matched(sure[sure[:, 0] == row, 2:], true[true[:, 0] == row, 2:]) for row in tiles)
        counts.append((len(sure), hits))
    return len(true), counts


def _tiles(arrays: Arrays, data: Any, num_pictures: int) -> list[Block]:
    order = worst_tiles(arrays)
    f1 = _f1_of_tiles(arrays)
    worst = [row for row in order if f1[row] < 1][:num_pictures]
    middle = [row for row in order if row not in worst]
    middle = middle[len(middle) // 2 :][:NUM_MEDIAN]
    ink = _ink_of([str(arrays["image_ids"][row]) for row in (*worst, *middle)], data)
    legend = (
        "Above: the ink, and the difference: white in both, green missed, orange invented. Below: what is true, and what was "
        "found. Rings: green end points, red junctions, yellow corners."
    )
    blocks: list[Block] = [] if ink else [Text("The tiles can't be read here, so their ink is not shown.")]
    for title, rows in (("the worst tiles", worst), ("tiles in the middle of those kept", middle)):
        pictures = [_picture(arrays, row, ink.get(str(arrays["image_ids"][row]))) for row in rows]
        if pictures:
            blocks.append(Gallery(pictures, f"Here: {title}. {legend}"))
    return blocks if worst or middle else [Text("No tile has an error.")]


def _picture(arrays: Arrays, row: int, ink: NDArray[np.float32] | None) -> Picture:
    place = int(np.flatnonzero(arrays["kept"] == row)[0])
    height, width = arrays["tile_size"].tolist()
    true, found = (
        np.unpackbits(arrays[name][place], count=height * width).reshape(height, width).astype(bool)
        for name in ("true_skeletons", "found_skeletons")
    )
    sure = arrays["found_scores"] >= np.float32(arrays["key_point_threshold"])
    points = [arrays["true_points"], arrays["found_points"][sure]]
    own = [some[some[:, 0] == row, 1:] for some in points] if arrays["is_full"] else [some[:0, 1:] for some in points]
    counts = arrays["counts"][row]
    caption = f"{arrays['image_ids'][row]}: F1 {_f1_of_tiles(arrays)[row]:.2f}, {counts[1]} true px, {counts[0]} found"
    if arrays["is_full"]:
        caption += f"; key points {len(own[0])} true, {len(own[1])} found"
    return Picture(caption, jpeg(tile_picture(ink, true, found, own[0], own[1])))


def _ink_of(image_ids: Sequence[str], data: Any) -> dict[str, NDArray[np.float32]]:
    """Return id → the tile's ink (H, W) in [0, 1], of those that can be read."""
    if not hasattr(data, "val_batches_of"):
        return {}
    try:
        return {
            str(batch.image_ids[0]): batch.images[0, 0].numpy()
            for batch in data.val_batches_of(image_ids, data.image_size)
        }
    except WinnowError:
        return {}
