import numpy as np
import pytest
import torch
from detection_parts import batch, jittered, nothing_found, target, truth_as_detections

from winnow.errors import ConfigError
from winnow.families.detection.batch import Detections
from winnow.families.detection.metrics.coco_ap import CocoAp, metric_names

BACKENDS = ["hotcoco", "pycocotools"]


def targets():
    return [
        target([[5, 5, 25, 25], [30, 10, 80, 60]], [0, 2], image_id=7),
        target([[10, 10, 20, 40]], [1], image_id="b"),
        target([], [], image_id=9),
    ]


def evaluated(truth, found, **settings):
    metric = CocoAp(["car", "bus", "bike"], **settings)
    metric.update(found, batch(*truth))
    return metric.compute()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_truth_as_detections_scores_one(backend):
    truth = targets()
    values = evaluated(truth, [truth_as_detections(t) for t in truth], backend=backend)
    for name in ("map", "map_50", "mar_100", "map_class/bus"):
        assert values[name] == pytest.approx(1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_score_zero(backend):
    truth = targets()
    values = evaluated(truth, [nothing_found() for _ in truth], backend=backend)
    assert set(values.values()) == {0.0}
    assert {"map", "map_50", "map_75", "mar_100"} <= set(values)


@pytest.mark.parametrize("seed", range(5))
def test_numbers_equal_those_of_pycocotools_to_the_last_bit(seed):
    truth, found = jittered(np.random.default_rng(seed))
    fast, reference = (evaluated(truth, found, backend=name) for name in BACKENDS)
    assert 0.05 < reference["map"] < 0.95
    assert fast == reference


def on_a_grid(rng, num_images=12, num_classes=2):
    """Return boxes, scores and areas of so few values that IoUs and scores are often equal, many crowds among them, in many
    sizes."""
    truth, found = [], []
    for image_id in range(num_images):
        num, num_found = int(rng.integers(0, 7)), int(rng.integers(0, 30))
        corners, sides = rng.integers(0, 3, (num, 2)) * 60, rng.integers(1, 4, (num, 2)) * 40
        areas = rng.choice([500.0, 1024.0, 5000.0, 9216.0, 20000.0], num).tolist()
        crowd = (rng.random(num) < 0.3).tolist()
        boxes = np.concatenate([corners, corners + sides], axis=1).tolist()
        labels = rng.integers(0, num_classes, num).tolist()
        truth.append(target(boxes, labels, (300, 300), image_id=image_id, crowd=crowd, areas=areas))
        corners = torch.tensor(rng.integers(0, 7, (num_found, 2)) * 30).float()
        sides = torch.tensor(rng.integers(0, 7, (num_found, 2)) * 20).float()
        scores = torch.tensor(np.sort(rng.integers(1, 5, num_found))[::-1].copy() / 5).float()
        guessed = torch.tensor(rng.integers(0, num_classes, num_found))
        found.append(Detections(torch.cat([corners, corners + sides], dim=1), scores, guessed))
    return truth, found


@pytest.mark.parametrize("max_detections", [3, 100])
@pytest.mark.parametrize("seed", range(8))
def test_ties_crowds_and_sizes_are_settled_as_in_pycocotools(seed, max_detections):
    truth, found = on_a_grid(np.random.default_rng(seed))
    ours, reference = (evaluated(truth, found, backend=name, max_detections=max_detections) for name in BACKENDS)
    assert ours == reference


def test_a_detection_on_a_crowd_is_neither_right_nor_wrong():
    truth = [target([[5, 5, 25, 25], [30, 10, 80, 60]], [0, 0], crowd=[False, True])]
    boxes = torch.tensor([[5.0, 5, 25, 25], [32, 12, 70, 50]])
    values = evaluated(truth, [Detections(boxes, torch.tensor([0.8, 0.9]), torch.zeros(2, dtype=torch.int64))])
    assert values["map"] == pytest.approx(1.0)


def test_sizes_follow_the_annotated_area_in_original_pixels():
    truth = [target([[0, 0, 40, 40]], [0], size=(64, 64), original_size=(640, 640))]
    values = evaluated(truth, [truth_as_detections(t) for t in truth])
    assert values["map_large"] == pytest.approx(1.0)
    assert "map_small" not in values
    assert "map_class/bike" not in values


def test_detections_below_the_threshold_or_not_finite_do_not_count(caplog):
    truth = [target([[5, 5, 25, 25]], [0])]
    boxes = torch.tensor([[5.0, 5, 25, 25], [torch.nan, 0, 1, 1]])
    found = [Detections(boxes, torch.tensor([0.3, 0.9]), torch.zeros(2, dtype=torch.int64))]
    assert evaluated(truth, found, score_threshold=0.2)["map"] == pytest.approx(1.0)
    assert "1 detections with a non-finite box" in caplog.text
    assert evaluated(truth, found, score_threshold=0.4)["map"] == 0.0


def test_ranks_merge_to_the_same_numbers_and_a_repeated_image_counts_once():
    truth, found = jittered(np.random.default_rng(0))
    whole = evaluated(truth, found)
    ranks = [CocoAp(["car", "bus", "bike"]) for _ in range(2)]
    ranks[0].update(found[:25], batch(*truth[:25]))
    ranks[1].update(found[20:], batch(*truth[20:]))
    ranks[0].merge(ranks[1].state())
    assert ranks[0].compute() == whole


def test_no_truth_gives_no_numbers(caplog):
    assert evaluated([target([], [])], [nothing_found()]) == {}
    assert "none with an annotation" in caplog.text


def test_results_carry_the_category_ids_of_the_data_set():
    metric = CocoAp(["car", "bus"], [3, 90])
    truth = target([[5, 5, 25, 25]], [1], image_id=7)
    metric.update([truth_as_detections(truth)], batch(truth))
    assert metric.detections_json()[0] == {
        "image_id": 7,
        "category_id": 90,
        "bbox": [5, 5, 20, 20],
        "score": pytest.approx(0.9),
    }


def test_compute_gives_only_announced_names():
    truth, found = jittered(np.random.default_rng(1))
    metric = CocoAp(["car", "bus", "bike"])
    metric.update(found, batch(*truth))
    assert set(metric.compute()) <= set(metric.names)


def test_class_names_become_names_that_mlflow_takes():
    assert metric_names(["traffic light", "a/b", "a:b", "été", "(x)"]) == [
        "traffic light",
        "a_b",
        "a_b_2",
        "été",
        "_x_",
    ]


def test_a_label_outside_the_classes_is_an_error():
    with pytest.raises(ValueError, match=r"an annotation of image 1 has label \[5\]; allowed: 0 to 2"):
        evaluated([target([[0, 0, 9, 9]], [5])], [nothing_found()])


@pytest.mark.parametrize(("settings", "message"), [
    ({"backend": "mmdet"}, "evaluation.backend='mmdet' is not known; allowed: hotcoco, pycocotools"),
    ({"score_threshold": 1.5}, "evaluation.score_threshold=1.5"),
    ({"max_detections": 0}, "evaluation.max_detections=0"),
])  # fmt: skip
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        CocoAp(["car"], **settings)
