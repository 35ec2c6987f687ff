import math

import numpy as np
import pytest
import torch
from detection_parts import batch, jittered, target

from winnow.families.detection.batch import Detections
from winnow.families.detection.diagnosis import Diagnosis
from winnow.families.detection.metrics.coco_ap import CocoAp

NAMES = ["car", "bus"]
PLACES = [[10, 10, 50, 50], [100, 100, 160, 160], [200, 10, 220, 30]]


def diagnosed(*samples):
    """Return the diagnosis of (true labels, [(place, label, score)]) per image; boxes are those of ``PLACES``."""
    metric = CocoAp(NAMES)
    for number, (true, found) in enumerate(samples):
        one = target([PLACES[place] for place in range(len(true))], true, (240, 240), image_id=number)
        boxes = torch.tensor([PLACES[place] for place, _, _ in found]).float().reshape(-1, 4)
        detections = Detections(
            boxes,
            torch.tensor([score for *_, score in found]),
            torch.tensor([label for _, label, _ in found], dtype=torch.int64),
        )
        metric.update([detections], batch(one))
    return Diagnosis(metric.sorted_images(), NAMES)


def test_its_average_precision_is_the_metric_s():
    metric = CocoAp(["a", "b", "c"])
    truth, found = jittered(np.random.default_rng(0))
    metric.update(found, batch(*truth))
    diagnosis, values = Diagnosis(metric.sorted_images(), ["a", "b", "c"]), metric.compute()
    for label, name in enumerate("abc"):
        assert diagnosis.ap(label) == pytest.approx(values[f"map_class/{name}"], abs=1e-12)
    assert np.mean([diagnosis.ap(label, iou=0) for label in range(3)]) == pytest.approx(values["map_50"], abs=1e-12)
    by_size = {name: ap for name, _, ap, _ in diagnosis.strata()}
    assert {f"map_{name}": ap for name, ap in by_size.items() if ap == ap} == pytest.approx(
        {name: values[name] for name in ("map_small", "map_medium", "map_large") if name in values}, abs=1e-12
    )


def test_the_best_threshold_keeps_what_is_right_and_drops_what_is_not():
    # Right at 0.9 and 0.7, wrong at 0.4: with the threshold at 0.7 nothing is wrong and nothing is missed.
    diagnosis = diagnosed(([0, 0], [(0, 0, 0.9), (1, 0, 0.7), (2, 0, 0.4)]))
    best = diagnosis.best(0)
    assert (best.threshold, best.f1, best.precision, best.recall) == (pytest.approx(0.7), 1.0, 1.0, 1.0)
    assert diagnosis.threshold == pytest.approx(0.7)


def test_a_class_that_is_never_found_has_no_threshold():
    diagnosis = diagnosed(([0], []))
    assert diagnosis.best(0).f1 == 0
    assert diagnosis.labels == [0]
    assert math.isnan(diagnosis.ap(1))


def test_each_box_of_an_image_is_judged_at_the_threshold():
    diagnosis = diagnosed(
        ([0, 1, 0], [(0, 0, 0.9), (1, 0, 0.8), (2, 0, 0.1)]),
        ([1], [(0, 1, 0.95), (2, 1, 0.9)]),
        ([], []),
    )
    diagnosis.__dict__["threshold"] = 0.5
    first, second, third = diagnosis.judged()
    assert (first.hits, first.confused, first.false, first.missed) == ((0,), (1,), (), (1, 2))
    assert first.f1 == pytest.approx(2 / 5)
    assert (second.hits, second.confused, second.false, second.missed) == ((0,), (), (1,), ())
    assert (third.f1, third.doubt) == (1.0, 0.0)


def test_doubt_is_greatest_at_a_score_of_a_half():
    sure, unsure = diagnosed(([0], [(0, 0, 0.99)]), ([0], [(0, 0, 0.5)])).judged()
    assert unsure.doubt == pytest.approx(1.0)
    assert sure.doubt == pytest.approx(4 * 0.99 * 0.01)


def test_confusions_are_counted_by_true_and_found_class():
    diagnosis = diagnosed(([0, 1], [(0, 0, 0.9), (1, 0, 0.8), (2, 1, 0.7)]), ([1], [(0, 1, 0.9)]))
    diagnosis.__dict__["threshold"] = 0.5
    assert diagnosis.confusion() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]


def test_errors_say_what_they_cost():
    errors = diagnosed(([0, 1], [(0, 0, 0.9), (1, 0, 0.8)]), ([1], [(0, 1, 0.9)])).errors()
    assert errors["Cls"][0] == 1
    assert errors["Cls"][1] > 0
    assert errors["Dupe"] == (0, 0.0)


def test_a_sure_detection_of_another_class_makes_an_annotation_doubtful():
    doubts = diagnosed(([0, 0], [(0, 0, 0.9), (1, 1, 0.97)]), ([1], [(0, 1, 0.9)])).label_doubts()
    assert [(doubt["image_id"], doubt["dt_category_id"], doubt["gt_category_id"]) for doubt in doubts] == [(1, 1, 0)]
