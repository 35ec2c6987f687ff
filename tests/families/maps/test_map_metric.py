"""What is measured of maps: distances between lines, average precision by MapTR's protocol, recall and errors."""

import numpy as np
import pytest
import torch
from map_parts import CITIES, batch, found, lines, random_lines

from winnow.families.maps.chamfer import chamfer_distances
from winnow.families.maps.lines import CLASSES, MapLines, resample
from winnow.families.maps.metric import STRICT, THRESHOLDS_M, USUAL, MapMetric, average_precision, judge
from winnow.families.maps.predictions import MapPredictions, top_lines

LINE = np.array([[0.0, -30.0], [0.0, 30.0]])
SHORT = np.array([[0.0, -30.0], [0.0, 28.5]])
ASIDE = np.array([0.3, 0.0])


def distance(one, num_one, other, num_other):
    return float(chamfer_distances(resample(one, num_one)[None], resample(other, num_other)[None])[0, 0])


def measure(*seen, cities=CITIES, max_lines=50):
    metric = MapMetric(CLASSES, cities, max_lines)
    for predictions, true in seen:
        metric.update(predictions, true)
    return metric.compute()


@pytest.mark.parametrize(("one", "num_one", "num_other", "expected"), [
    (SHORT, 100, 100, 0.159), (SHORT, 20, 20, 0.750),
    (LINE + ASIDE, 100, 100, 0.300), (LINE + ASIDE, 20, 100, 0.604),
    (SHORT + ASIDE, 100, 100, 0.353), (SHORT + ASIDE, 20, 20, 0.839),
])  # fmt: skip
def test_a_fault_of_a_60_m_line_has_its_distance_whatever_its_number_of_points_would_make_of_it(
    one, num_one, num_other, expected
):
    assert distance(one, num_one, LINE, num_other) == pytest.approx(expected, abs=5e-4)
    assert distance(LINE, num_other, one, num_one) == pytest.approx(expected, abs=5e-4)


def test_a_prediction_of_few_points_is_compared_at_a_hundred():
    true = MapLines.of([LINE], [0])
    moved = found(true, moved=(0.3, 0.0), num_points=20)
    assert judge(moved, true, 3, 50, 0).distances[0] == pytest.approx(0.3, abs=1e-6)


def test_the_truth_fed_back_scores_one_in_all_that_is_a_part_of_it():
    true = random_lines(np.random.default_rng(0), 12)
    values = measure(([found(true, num_points=2000)], batch(true)))
    assert {name: value for name, value in values.items() if name.startswith(("map", "recall"))} == pytest.approx(
        dict.fromkeys((name for name in values if name.startswith(("map", "recall"))), 1.0), abs=1e-12
    )
    assert values["error_m"] < 0.01


def test_full_resolution_truth_is_what_a_prediction_of_twenty_points_is_held_against():
    corner = [[0, 0], [10, 0], [10, 9.3], [0, 9.3], [0, 0]]  # twenty points along it miss three of its corners
    true = lines(("ped_crossing", corner))
    error = measure(([found(true, num_points=20)], batch(true)))["error_m"]
    assert 0.01 < error < 0.2


@pytest.mark.parametrize(("moved", "expected"), [(0.49, 1.0), (0.51, 2 / 3), (1.01, 1 / 3), (1.51, 0.0)])
def test_a_match_is_nearer_than_the_threshold(moved, expected):
    true = MapLines.of([LINE], [0])
    assert measure(([found(true, moved=(moved, 0.0))], batch(true)))["map"] == pytest.approx(expected)


def test_a_distance_of_just_the_threshold_is_no_match():
    true = MapLines.of([np.array([[0.0, 0.0], [0.0, 99.0]])], [0])
    values = measure(([found(true, moved=(0.5, 0.0), num_points=100)], batch(true)))
    assert (values["map_0.5m"], values["map_1.0m"]) == (0.0, 1.0)


def test_a_prediction_looks_at_its_nearest_line_and_at_no_other():
    true = lines(("divider", LINE), ("divider", LINE + np.array([1.0, 0.0])))
    predictions = MapPredictions(
        torch.from_numpy(np.stack([resample(LINE + np.array([shift, 0.0]), 20) for shift in (0.0, 0.1)])).float(),
        torch.tensor([0.9, 0.8]), torch.tensor([0, 0]),
    )  # fmt: skip
    values = measure(([predictions], batch(true)))
    assert values["map_1.5m"] == pytest.approx(
        0.5
    )  # the second is within 1.5 m of the line that is left, and does not look at it


def test_the_best_fifty_count_whatever_their_class_and_their_score():
    true = lines(("divider", LINE), ("boundary", LINE + np.array([5.0, 0.0])))
    far = torch.from_numpy(resample(LINE + np.array([100.0, 0.0]), 20)).float()
    points = torch.stack([*[far] * 50, torch.from_numpy(resample(LINE, 20)).float()])
    low = MapPredictions(points, torch.linspace(1e-3, 1e-5, 51), torch.tensor([2] * 50 + [0]))
    assert measure(([low], batch(true)))["map"] == 0.0
    assert measure(([low], batch(true)), max_lines=51)["map_class/divider"] == 1.0


def test_one_query_may_give_a_line_of_each_class():
    points = torch.arange(12.0).view(2, 3, 2)
    best = top_lines(points, torch.tensor([[0.1, 0.9, 0.8], [0.7, 0.2, 0.0]]), 3)
    assert best.labels.tolist() == [1, 2, 0]
    assert best.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert torch.equal(best.points, points[[0, 0, 1]])


def test_a_class_that_does_not_occur_is_left_out_of_the_mean_and_the_number_of_classes_says_so():
    true = lines(("divider", LINE), ("boundary", LINE + np.array([5.0, 0.0])))
    only = MapPredictions(found(true).points[:1], torch.ones(1), torch.tensor([0]))
    values = measure(([only], batch(true)))
    assert (values["num_classes"], values["map"], values["recall"]) == (2.0, 0.5, 0.5)
    assert "map_class/ped_crossing" not in values


def test_each_city_is_measured_by_itself():
    true = lines(("divider", LINE))
    values = measure(([found(true), found(true, moved=(9.0, 0.0))], batch(true, true, cities=CITIES)))
    assert (values["map_city/here"], values["map_city/there"]) == (1.0, 0.0)
    assert "map_city/here" not in measure(([found(true)], batch(true)), cities=CITIES[:1])


def test_equal_scores_count_at_once_in_whatever_order_they_come():
    scores, hits = np.array([0.5, 0.5, 0.5, 0.2]), np.array([True, False, False, True])
    assert average_precision(scores, hits, 2) == average_precision(scores[[2, 1, 0, 3]], hits[[2, 1, 0, 3]], 2) == 0.5


def test_points_that_are_no_numbers_match_nothing():
    true = lines(("divider", LINE))
    broken = MapPredictions(torch.full((1, 20, 2), torch.nan), torch.ones(1), torch.tensor([0]))
    assert measure(([broken], batch(true)))["map"] == 0.0


def at_hundred(line):
    """Return a hundred points along a line, one after the other."""
    line = np.asarray(line, float)
    steps = np.hypot(*(line[1:] - line[:-1]).T)
    points = []
    for along in np.linspace(0, steps.sum(), 100):
        segment = 0
        while segment < len(steps) - 1 and along > steps[segment]:
            along -= steps[segment]
            segment += 1
        part = along / steps[segment] if steps[segment] else 0.0
        points.append(line[segment] + min(part, 1.0) * (line[segment + 1] - line[segment]))
    return np.array(points)


def slow_chamfer(one, other):
    table = np.hypot(*(one[:, None] - other[None]).transpose(2, 0, 1))
    return (sum(table.min(axis=1)) / 100 + sum(table.min(axis=0)) / 100) / 2


def slow_map(seen, thresholds):
    """Return mean AP by the protocol, written anew with loops: one pair and one prediction at a time."""
    seen = [(found.scores.tolist(), found.labels.tolist(), [at_hundred(line) for line in found.points.numpy()], true)
            for found, true in seen]  # fmt: skip
    means = []
    for label in range(len(CLASSES)):
        truths = [[at_hundred(line) for line in true.of_class(label)] for *_, true in seen]
        num_true = sum(map(len, truths))
        if num_true == 0:
            continue
        looked = []  # per sample, the best prediction first: (score, nearest true line, its distance)
        for (scores, labels, points, _), own in zip(seen, truths, strict=True):
            best = sorted(range(len(scores)), key=lambda index: -scores[index])[:50]
            tables = {
                index: [slow_chamfer(points[index], line) for line in own] for index in best if labels[index] == label
            }
            looked.append([(scores[i], int(np.argmin(table)), min(table)) if own else (scores[i], 0, np.inf)
                           for i, table in tables.items()])  # fmt: skip
        for threshold in thresholds:
            rows = []
            for sample in looked:
                taken = set()
                for score, nearest, distance in sample:
                    is_hit = distance < threshold and nearest not in taken
                    taken |= {nearest} if is_hit else set()
                    rows.append((score, is_hit))
            hits, area, before, curve = 0, 0.0, 0.0, []
            for number, (_, is_hit) in enumerate(sorted(rows, key=lambda row: -row[0]), start=1):
                hits += is_hit
                curve.append((hits / num_true, hits / number))
            for place, (recall, _) in enumerate(curve):
                area += (recall - before) * max(precision for _, precision in curve[place:])
                before = recall
            means.append(area)
    return float(np.mean(means)) if means else None


def random_seen(rng):
    """Return one to three samples of a few lines: some found well, some badly, some invented, of different scores."""
    seen = []
    for _ in range(int(rng.integers(1, 4))):
        true = random_lines(rng, int(rng.integers(0, 5)))
        points = [*true.resampled(20), *random_lines(rng, int(rng.integers(0, 3))).resampled(20)]
        points = [
            line + rng.normal(0, rng.choice([0.05, 0.4, 1.5]), 2)
            for line in points
            for _ in range(int(rng.integers(0, 3)))
        ]
        stacked = np.stack(points) if points else np.zeros((0, 20, 2))
        labels = rng.integers(0, 3, len(points)) if rng.random() < 0.3 else np.zeros(len(points), int)
        true = MapLines(true.vertices, true.starts, true.labels if rng.random() < 0.5 else np.zeros_like(true.labels))
        scores = torch.from_numpy(rng.permutation(len(points)) + rng.random()).float()
        seen.append((MapPredictions(torch.from_numpy(stacked).float(), scores, torch.from_numpy(labels)), true))
    return seen


def test_it_is_what_a_slow_version_finds_on_random_sets():
    num_measured = 0
    for seed in range(100):
        seen = random_seen(np.random.default_rng(seed))
        values = measure(*(([predictions], batch(true)) for predictions, true in seen))
        for name, thresholds in (("map", USUAL), ("map_strict", STRICT)):
            expected = slow_map(seen, thresholds)
            assert values.get(name) == (None if expected is None else pytest.approx(expected, abs=1e-9)), (seed, name)
        num_measured += values.get("map", 0) > 0
    assert num_measured > 40


def test_far_pairs_are_spared_and_change_nothing():
    rng = np.random.default_rng(3)
    some, others = (random_lines(rng, 20).resampled(100).astype(float) for _ in range(2))
    whole, limited = chamfer_distances(some, others), chamfer_distances(some, others, THRESHOLDS_M[-1])
    assert np.array_equal(np.where(whole < THRESHOLDS_M[-1], whole, np.inf), limited)
    assert chamfer_distances(some[:0], others).shape == (0, 20)
