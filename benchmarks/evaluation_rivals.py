"""hotcoco against pycocotools on random sets: python benchmarks/evaluation_rivals.py [--sets 5000].

It is what ``evaluation=boxes`` computes average precision with. Each set has crowds, ``ignore`` flags, areas that are not the
box's, boxes without extent, empty images, equal scores and overlaps, up to 120 classes, and limits on detections. Compared bit
for bit are the arrays of precision, recall and scores for all three of pycocotools' limits, and COCO's twelve means. Prints per
kind of set how many differ and by how much, and ends with exit code 1 where any does. Needs: pip install pycocotools.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow.families.detection.metrics.coco_matching import Boxes

COCO_LIMITS = [1, 10, 100]
Random = np.random.Generator
Numbers = dict[str, NDArray[np.float64]]
"""Precision and scores (10 IoUs, 101 recalls, classes, 4 areas, limits), recall (10, classes, 4, limits), the twelve means."""


@dataclass(frozen=True)
class Kind:
    """How the sets of one kind are drawn."""

    images: int
    classes: int
    true: int
    """Most boxes per image, as ``found`` is of detections."""
    found: int
    crowd: float
    grid: bool
    """Whether corners, sides and scores are of few values, so that overlaps and scores are often equal."""
    limits: tuple[int, int, int]
    """Most detections per image and class that count."""


KINDS = {
    "as a detector's": Kind(12, 3, 6, 20, 0.1, False, (1, 10, 100)),
    "ties": Kind(12, 2, 7, 30, 0.0, True, (1, 10, 100)),
    "ties and crowds": Kind(12, 2, 7, 30, 0.4, True, (1, 10, 100)),
    "many classes": Kind(20, 120, 8, 25, 0.1, True, (1, 10, 100)),
    "few detections count": Kind(10, 2, 6, 60, 0.2, True, (1, 3, 5)),
    "more than 100 detections": Kind(3, 1, 40, 260, 0.2, True, (1, 10, 100)),
    "crowds alone": Kind(6, 2, 3, 12, 1.0, True, (1, 10, 100)),
    "nearly nothing": Kind(3, 2, 1, 2, 0.3, True, (1, 10, 100)),
}


@dataclass(frozen=True)
class RandomSet:
    """Boxes of all images, xywh px, and what the three evaluators are told besides."""

    kind: Kind
    true: Boxes
    crowd: NDArray[np.bool_]
    found: Boxes
    scores: NDArray[np.float64]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help=f"{3 * len(KINDS)} sets")
    options = parser.parse_args()
    missing = [name for name in ("hotcoco", "pycocotools") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"skipped: {' and '.join(missing)} is not installed")
        return 0
    rivals = {"hotcoco": by_hotcoco}
    differing = Counter[tuple[str, str]]()
    worst, seconds = dict.fromkeys(rivals, 0.0), dict.fromkeys(rivals, 0.0)
    per_kind = -(-(3 * len(KINDS) if options.smoke else options.sets) // len(KINDS))
    for name, kind in KINDS.items():
        for number in range(per_kind):
            drawn = draw(kind, np.random.default_rng([options.seed, list(KINDS).index(name), number]))
            reference = by_pycocotools(drawn)
            for rival, evaluate in rivals.items():
                began = time.perf_counter()
                difference = largest_difference(evaluate(drawn), reference)
                seconds[rival] += time.perf_counter() - began
                if difference:
                    differing[rival, name] += 1
                    worst[rival] = max(worst[rival], difference)
        line = ", ".join(f"{rival} differs in {differing[rival, name]}" for rival in rivals)
        print(f"{name:26} {per_kind} sets: {line}", flush=True)
    for rival in rivals:
        print(f"{rival}: largest difference of any number {worst[rival]:.3g}; {seconds[rival]:.1f} s")
    return int(any(differing.values()))


def draw(kind: Kind, random: Random) -> RandomSet:
    """Return a set of ``kind``. One image in five has no true box, one in five no detection; half of the detections lie near a
    true box, most of these with its class."""
    true, found = _boxes(kind, random, kind.true), _boxes(kind, random, kind.found)
    crowd = random.random(len(true.label)) < kind.crowd
    areas = np.where(
        random.random(len(crowd)) < 0.5, true.area, random.choice([0.0, 1024.0, 5e3, 9216.0, 2e4], len(crowd))
    )
    for index in np.flatnonzero(random.random(len(found.label)) < 0.5):
        near = np.flatnonzero(true.image == found.image[index])
        if len(near):
            source = random.choice(near)
            moved = random.integers(-1, 2, 4) * 10.0 if kind.grid else random.normal(0, 4, 4)
            found.xywh[index] = true.xywh[source] + moved * (random.random(4) < 0.5)
            found.xywh[index, 2:] = found.xywh[index, 2:].clip(0)
            found.label[index] = true.label[source] if random.random() < 0.8 else found.label[index]
    found = found._replace(area=found.xywh[:, 2] * found.xywh[:, 3])
    scores = random.integers(0, 6, len(found.label)) / 5 if kind.grid else random.random(len(found.label))
    return RandomSet(kind, true._replace(area=areas), crowd, found, scores)


def _boxes(kind: Kind, random: Random, most: int) -> Boxes:
    counts = random.integers(0, most + 1, kind.images) * (random.random(kind.images) > 0.2)
    total = int(counts.sum())
    if kind.grid:
        corners, sides = random.integers(0, 5, (total, 2)) * 30.0, random.integers(0, 6, (total, 2)) * 30.0
    else:
        corners, sides = random.uniform(0, 300, (total, 2)), np.exp(random.uniform(1.5, 5, (total, 2)))
    images = np.repeat(np.arange(kind.images), counts)
    xywh = np.concatenate([corners, sides], axis=1)
    return Boxes(images, random.integers(0, kind.classes, total), xywh, sides.prod(axis=1))


def by_pycocotools(drawn: RandomSet) -> Numbers:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        datasets = []
        for content in contents(drawn):
            datasets.append(COCO())
            datasets[-1].dataset = content
            datasets[-1].createIndex()
        evaluation = COCOeval(*datasets, "bbox")
        evaluation.params.maxDets = list(drawn.kind.limits)
        return numbers(evaluation)


def by_hotcoco(drawn: RandomSet) -> Numbers:
    from hotcoco import COCO, COCOeval

    truth, found = map(COCO, contents(drawn))
    evaluation = COCOeval(truth, found, "bbox")
    parameters = evaluation.params
    parameters.max_dets = list(drawn.kind.limits)
    evaluation.params = parameters
    with contextlib.redirect_stdout(io.StringIO()):
        return numbers(evaluation)


def numbers(evaluation: Any) -> Numbers:
    """Return what an evaluator of pycocotools' interface comes to; it prints its means."""
    evaluation.evaluate()
    evaluation.accumulate()
    arrays = {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall", "scores")}
    if list(evaluation.params.maxDets) != COCO_LIMITS:
        return arrays  # pycocotools' means look for a limit of 100, and are −1 without it; hotcoco's take the largest
    evaluation.summarize()
    return {**arrays, "means": np.asarray(evaluation.stats)}


def contents(drawn: RandomSet) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return truth and detections as COCO files have them; ids from 1, for pycocotools reads a match with 0 as none."""
    frame: dict[str, Any] = {
        "images": [{"id": number, "width": 400, "height": 400} for number in range(drawn.kind.images)],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(drawn.kind.classes)],
    }
    tables = []
    for boxes, extra in (
        (drawn.true, {"iscrowd": drawn.crowd.astype(int), "ignore": np.arange(len(drawn.crowd)) % 2}),
        (drawn.found, {"iscrowd": np.zeros(len(drawn.scores), int), "score": drawn.scores}),
    ):
        columns = {"image_id": boxes.image, "category_id": boxes.label, "bbox": boxes.xywh, "area": boxes.area} | extra
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        annotations = [
            {"id": number, **dict(zip(columns, row, strict=True))} for number, row in enumerate(rows, start=1)
        ]
        tables.append(frame | {"annotations": annotations})
    return tables[0], tables[1]


def largest_difference(rival: Numbers, reference: Numbers) -> float:
    """Return the largest difference of any number that ``rival`` has; infinite where the shapes differ."""
    pairs = [(rival[name], reference[name]) for name in rival]
    if any(one.shape != other.shape for one, other in pairs):
        return float("inf")
    return max(float(np.abs(one - other).max(initial=0.0)) for one, other in pairs)


if __name__ == "__main__":
    sys.exit(main())
