"""What is measured of pairs: COCO's average precision, on KAIST's images the log-average miss rate, and MACL's loss against
chance."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow.families.detection.batch import DetectionBatch, Detections
from winnow.families.detection.metrics.coco_ap import CocoAp, boxes_of
from winnow.families.detection.metrics.image_result import ImageResult
from winnow.families.pairs.batch import AlignedDetections
from winnow.families.pairs.metrics.miss_rate import NOTHING_FOUND, Judged, is_reasonable, judge, log_average_miss_rate

logger = logging.getLogger(__name__)

PERSON = "person"
MISS_RATES = ("miss_rate", "miss_rate_day", "miss_rate_night")
MACL, MACL_CHANCE = "macl", "macl_chance"
NIGHT_SETS = frozenset({3, 4, 5, 9, 10, 11})
"""KAIST's sets that were taken at night; 0–2 and 6–8 were taken by day."""
_KAIST_ID = re.compile(r"set(\d\d)/")


class PairMetric(CocoAp):
    """COCO's average precision, and KAIST's miss rates (Hwang et al. 2015; Dollár et al. 2012) in percent, for all
    images and those taken by day and at night, where every image has an id of KAIST (``set06/V000/I00019``).

    A person is ignored in the miss rate where the truth marks a crowd, which is what the reader of KAIST does with other
    categories, with ``ignore`` and with heavy occlusion; or if it is too small or too near the border (``miss_rate``).

    Of ``AlignedDetections`` it also gives the contrastive loss of an object, without its weight, as ``macl``, and beside it
    ``macl_chance``, ln of the candidates.
    """

    headlines: tuple[str, ...] = ("map", "map_50", "miss_rate", MACL, MACL_CHANCE)

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._beside_chance: dict[int | str, list[float]] = {}

    def update(self, predictions: Sequence[Detections], batch: DetectionBatch) -> None:
        """Add one batch, as ``CocoAp`` does."""
        super().update(predictions, batch)
        if isinstance(predictions, AlignedDetections):
            self._beside_chance |= dict(zip(batch.image_ids, predictions.beside_chance.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        return super().state() | {"beside_chance": self._beside_chance}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what ``CocoAp`` gives, and with MACL ``beside_chance`` (N, 3) by image: how many objects both images show, their
        contrastive loss, and what that is by chance."""
        if not self._beside_chance:
            return super().arrays()
        none = [0.0, 0.0, 0.0]
        rows = [self._beside_chance.get(image.image_id, none) for image in self.sorted_images()]
        return super().arrays() | {"beside_chance": np.array(rows, dtype=np.float64).reshape(-1, 3)}

    def merge(self, state: dict[str, Any]) -> None:
        super().merge(state)
        self._beside_chance |= state["beside_chance"]

    @property
    def names(self) -> list[str]:
        return [*super().names, *MISS_RATES, MACL, MACL_CHANCE]

    @property
    def worst(self) -> dict[str, float]:
        values = super().worst | dict.fromkeys(MISS_RATES, NOTHING_FOUND)
        return {name: value for name, value in values.items() if name not in (MACL, MACL_CHANCE)}

    def compute(self) -> dict[str, float]:
        """Return what ``CocoAp`` gives; the miss rates, none of images that are not KAIST's, none of a time of day that no
        image was taken at; and with MACL its loss and chance."""
        return super().compute() | self._miss_rates() | self._macl()

    def _macl(self) -> dict[str, float]:
        rows = list(self._beside_chance.values())
        objects, loss, chance = (math.fsum(row[column] for row in rows) for column in range(3))
        return {MACL: loss / objects, MACL_CHANCE: chance / objects} if objects else {}

    def _miss_rates(self) -> dict[str, float]:
        images = self.sorted_images()
        values: dict[str, float] = {}
        judged, times = judged_persons(images, self.class_names)
        for name, is_wanted in times.items():
            if judged is not None and is_wanted.any():
                rate = log_average_miss_rate(judged, is_wanted)
                if rate is None:
                    logger.warning(
                        "%s is %g: of %d images, none has a person that counts, or nothing was found on them",
                        name, NOTHING_FOUND, is_wanted.sum(),
                    )  # fmt: skip
                values[name] = NOTHING_FOUND if rate is None else rate
        return values


def judged_persons(
    images: Sequence[ImageResult], class_names: Sequence[str]
) -> tuple[Judged | None, dict[str, NDArray[np.bool_]]]:
    """Return the persons of ``images`` judged as KAIST does, and which images (N,) each of ``MISS_RATES`` is of; None and nothing
    where they are not KAIST's."""
    sets = [_KAIST_ID.match(str(image.image_id)) for image in images]
    if not images or PERSON not in class_names or not all(sets):
        return None, {}
    is_night = np.array([match is not None and int(match[1]) in NIGHT_SETS for match in sets])
    label = class_names.index(PERSON)
    true, found = boxes_of(images, True), boxes_of(images, False)
    is_crowd = np.concatenate([image.true_crowd for image in images])
    scores = np.concatenate([image.scores for image in images])
    is_ignored = is_crowd | (true.label != label) | ~is_reasonable(true.xywh)
    chosen = np.flatnonzero(found.label == label)
    judged = judge(
        true._replace(label=np.zeros_like(true.label)), is_ignored,
        found.chosen(chosen)._replace(label=np.zeros(len(chosen), dtype=np.int64)), scores[chosen],
    )  # fmt: skip
    return judged, dict(zip(MISS_RATES, (np.ones_like(is_night), ~is_night, is_night), strict=True))
