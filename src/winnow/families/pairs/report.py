"""What a run's page shows of pairs besides detection's sections: miss rates by day and night, MACL's loss against chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow.families.detection.metrics.image_result import from_arrays
from winnow.families.pairs.metrics.miss_rate import NOTHING_FOUND, log_average_miss_rate, miss_rate_curve
from winnow.families.pairs.metrics.pair_metric import MISS_RATES, judged_persons
from winnow.sections import Bars, Block, Lines, Section, Series, Table, Text

_WORDS = dict(zip(MISS_RATES, ("day and night", "day", "night"), strict=True))


def pair_sections(arrays: Mapping[str, NDArray[Any]]) -> list[Section]:
    """Return the sections of what ``PairMetric.arrays`` gave; of images that are not KAIST's there are no miss rates, without
    MACL there is no loss against chance. Raises KeyError or ValueError where the arrays don't belong together."""
    parts = (("Miss rate", _miss_rates(arrays)), ("Loss against chance", _beside_chance(arrays)))
    return [Section(title, blocks) for title, blocks in parts if blocks]


def _miss_rates(arrays: Mapping[str, NDArray[Any]]) -> list[Block]:
    judged, times = judged_persons(from_arrays(arrays), [str(name) for name in arrays["classes"]])
    rows, series = [], []
    for name, is_wanted in times.items():
        if judged is None or not is_wanted.any():
            continue
        rate, curve = log_average_miss_rate(judged, is_wanted), miss_rate_curve(judged, is_wanted)
        rows.append((_WORDS[name], int(is_wanted.sum()), NOTHING_FOUND if rate is None else rate))
        if curve is not None:
            false_per_image, missed = curve
            shown = false_per_image > 0  # the axis is logarithmic
            series.append(Series(_WORDS[name], false_per_image[shown].tolist(), (100 * missed[shown]).tolist()))
    if not rows:
        return []
    return [
        Text(
            "Of persons in KAIST's reasonable setting; MR⁻² is the log-average of the curve from 0.01 to 1 false positives per "
            "image."
        ),
        Table(("taken by", "images", "MR⁻², %"), rows),
        Lines("Misses by false positives", "false positives per image", "missed, %", series, (0.0, 100.0), log_x=True),
    ]


def _beside_chance(arrays: Mapping[str, NDArray[Any]]) -> list[Block]:
    if "beside_chance" not in arrays:
        return []
    numbers = arrays["beside_chance"]
    if numbers.shape != (len(arrays["image_ids"]), 3):
        raise ValueError(f"beside_chance have shape {numbers.shape}, not {(len(arrays['image_ids']), 3)}")
    seen = numbers[numbers[:, 0] > 0]
    if not len(seen):
        return [Text("No validation pair has an object that both images show.")]
    num_objects, loss, chance = seen.sum(axis=0).tolist()
    shares = np.sort(seen[:, 1] / np.maximum(seen[:, 2], 1e-12))
    along = (np.arange(len(shares)) + 0.5) / len(shares)
    return [
        Text(
            f"MACL's contrastive loss of {num_objects:,.0f} objects in {len(seen):,} pairs, without its weight. Chance is "
            "ln of the candidates: what a network has that sees nothing in common between both images."
        ),
        Bars("Loss of an object", ["with this network", "by chance"], [loss / num_objects, chance / num_objects]),
        Lines(
            "Loss as a part of chance, from the best pair to the worst", "share of the pairs", "loss / chance",
            [Series("loss / chance", along.tolist(), shares.tolist())],
        ),
    ]  # fmt: skip
