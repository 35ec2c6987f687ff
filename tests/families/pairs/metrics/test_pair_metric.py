"""The miss rate on KAIST's improved test annotations with the published detections of MLPD, and by hand."""

import json
import logging

import numpy as np
import pytest
import torch
from composed import REPOSITORY
from detection_parts import nothing_found, target, truth_as_detections

from winnow.families.detection.batch import DetectionBatch, Detections, Target
from winnow.families.detection.metrics.coco_matching import match_boxes
from winnow.families.pairs.metrics import miss_rate
from winnow.families.pairs.metrics.pair_metric import PairMetric

PUBLISHED = REPOSITORY.parent / "shared/data/kaist_eval"
HEAVY = 2


@pytest.fixture(scope="module")
def published():
    """Return (id, boxes xyxy, ignored or heavily occluded, detections (N, 5) xywh and score) of each image."""
    if not PUBLISHED.is_dir():
        pytest.skip(f"{PUBLISHED} is not there")
    content = json.loads((PUBLISHED / "KAIST_annotation.json").read_text())
    found = np.loadtxt(PUBLISHED / "MLPD_result.txt", delimiter=",")
    by_image = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    images = []
    for image in content["images"]:
        objects = by_image[image["id"]]
        boxes = np.array([entry["bbox"] for entry in objects], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        ignored = [entry["ignore"] == 1 or entry["occlusion"] == HEAVY for entry in objects]
        images.append((image["im_name"], boxes, ignored, found[found[:, 0] == image["id"] + 1, 1:]))
    return images


def rates(images):
    metric = PairMetric(["person"], score_threshold=0.0)
    for name, boxes, ignored, found in images:
        boxes, ignored = torch.from_numpy(boxes), torch.tensor(ignored, dtype=torch.bool)
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        truth = Target(name, boxes[~ignored], labels[~ignored], (512, 640), (512, 640), boxes, labels, areas, ignored)
        corners = torch.from_numpy(np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1))
        detections = Detections(corners, torch.from_numpy(found[:, 4]), torch.zeros(len(found), dtype=torch.int64))
        metric.update([detections], DetectionBatch(torch.zeros(1, 4, 0, 0), torch.zeros(1, 0, 0), [truth]))
    return metric._miss_rates()


def rounded(values):
    return [round(value, 2) for value in values.values()]


def test_it_is_that_of_the_public_evaluation(published):
    found = rates(published)
    assert list(found) == ["miss_rate", "miss_rate_day", "miss_rate_night"]
    assert rounded(found) == [7.58, 7.96, 6.95]


def without_low_false_detections(true, is_ignored, found, scores, *rest):
    order, is_match, matches_ignored = match_boxes(true, is_ignored, found, scores, *rest)
    is_dropped = ~is_match & (found.xywh[order, 3] < miss_rate.MIN_HEIGHT)
    return order, is_match | is_dropped, matches_ignored | is_dropped


def test_each_rule_of_the_reasonable_setting_is_needed(published, monkeypatch):
    """What the public evaluation does not do gives other numbers on the same files."""
    with_persons = [image for image in published if len(image[1])]
    assert rounded(rates(with_persons))[0] == 8.79
    with monkeypatch.context() as patch:
        patch.setattr(miss_rate, "match_boxes", without_low_false_detections)
        assert rounded(rates(published))[0] == 6.54
    with monkeypatch.context() as patch:
        patch.setattr(miss_rate, "BORDER", np.array([-9999, -9999, 9999, 9999]))
        assert rounded(rates(published))[0] == 10.03
    with monkeypatch.context() as patch:
        patch.setattr(miss_rate, "MIN_HEIGHT", 50)
        assert rounded(rates(published))[0] == 9.05
    with monkeypatch.context() as patch:
        patch.setattr(miss_rate, "REFERENCES", 10 ** np.linspace(-2, 0, 9))
        assert rounded(rates(published))[:2] == [7.58, 7.95]


def test_a_reference_point_below_the_first_detection_is_all_missed(published):
    """A wrapped index would read the miss rate at the last detection there, and give 6.48."""
    images = [(name, boxes, ignored, found[found[:, 4] >= 0.9]) for name, boxes, ignored, found in published[:60]]
    name, boxes, ignored, found = images[0]
    images[0] = (name, boxes, ignored, np.vstack([found, [[300, 300, 30, 80, 2.0]]]))
    assert rounded(rates(images))[0] == 8.94


def kaist(boxes, image_id="set06/V000/I00019", crowd=None):
    return target(boxes, [0] * len(boxes), size=(512, 640), image_id=image_id, crowd=crowd)


def measured(*pairs):
    metric = PairMetric(["person"], score_threshold=0.0)
    for found, truth in pairs:
        metric.update([found], DetectionBatch(torch.zeros(1, 4, 0, 0), torch.zeros(1, 0, 0), [truth]))
    return metric.compute()


def test_nothing_that_counts_and_nothing_found_are_the_worst_with_a_warning(caplog):
    caplog.set_level(logging.WARNING)
    person = kaist([[100, 100, 140, 200]])
    small = kaist([[100, 100, 120, 154]], "set09/V000/I00019")
    values = measured((nothing_found(), person), (truth_as_detections(small), small))
    assert (values["miss_rate"], values["miss_rate_day"], values["miss_rate_night"]) == (100, 100, 100)
    assert (
        sum("none has a person that counts, or nothing was found" in record.message for record in caplog.records) == 2
    )
    assert measured((truth_as_detections(person), person))["miss_rate"] == pytest.approx(0, abs=1e-7)


def test_a_time_of_day_without_images_and_images_of_another_set_have_no_miss_rate():
    day, other = kaist([[100, 100, 140, 200]]), kaist([[100, 100, 140, 200]], image_id=7)
    assert {"miss_rate", "miss_rate_day"} == {
        name for name in measured((truth_as_detections(day), day)) if name.startswith("miss_rate")
    }
    assert not any(name.startswith("miss_rate") for name in measured((truth_as_detections(other), other)))


@pytest.mark.parametrize(("box", "counts"), [
    ([5, 100, 40, 155], True), ([4, 100, 40, 155], False), ([600, 100, 635, 155], True), ([600, 100, 636, 155], False),
    ([100, 5, 140, 60], True), ([100, 4, 140, 60], False), ([100, 452, 140, 507], True), ([100, 453, 140, 508], False),
    ([100, 100, 140, 154], False),
])  # fmt: skip
def test_the_border_is_closed_and_55_px_are_enough(box, counts):
    corners = np.array([box], dtype=np.float64)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    assert miss_rate.is_reasonable(xywh).tolist() == [counts]


def test_an_ignored_box_takes_any_number_of_detections_and_one_that_counts_comes_first():
    truth = kaist([[100, 100, 140, 200], [98, 98, 142, 202]], crowd=[False, True])
    boxes = torch.tensor([[98.0, 98, 142, 202], [100, 100, 140, 200], [99, 99, 141, 201], [300, 300, 340, 400]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.zeros(4, dtype=torch.int64))
    empty = [kaist([], f"set06/V000/I{number:05}") for number in range(100, 199)]
    # One false detection in 100 images comes last, at the lowest reference point: nothing is missed.
    values = measured((found, truth), *((nothing_found(), one) for one in empty))
    assert values["miss_rate"] == pytest.approx(0, abs=1e-7)
