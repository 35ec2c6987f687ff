from dataclasses import replace

import numpy as np
import pytest
import torch
from ink_parts import moved, some, tiles, truth

from winnow.families.ink.metric import InkMetric, num_matched, peaks


def measured(*seen, full=True):
    metric = InkMetric(skeleton_threshold=0.5, key_point_threshold=0.3, full=full)
    for predictions, batch in seen:
        metric.update(predictions, batch)
    return metric


def test_the_truth_scores_full_marks():
    batch = tiles(((4, 3, 12), 3.0), ((8, 0, 15), 2.0))
    values = measured((truth(batch), batch)).compute()
    ones = {
        "iou",
        "f1_0px",
        "f1_1px",
        "precision_1px",
        "recall_1px",
        *(f"end_point_{part}" for part in ("precision", "recall", "f1")),
    }
    assert values == {
        **dict.fromkeys(ones, 1.0),
        "tangent_error_deg": 0.0,
        "width_error_px": 0.0,
        "offset_error_px": 0.0,
    }


@pytest.mark.parametrize(("down", "values"), [
    (0, {"iou": 1.0, "f1_0px": 1.0, "f1_1px": 1.0, "end_point_recall": 1.0}),
    (1, {"iou": 0.0, "f1_0px": 0.0, "f1_1px": 1.0, "end_point_recall": 1.0}),
    (2, {"iou": 0.0, "f1_0px": 0.0, "f1_1px": 0.0, "end_point_recall": 1.0}),
    (3, {"iou": 0.0, "f1_0px": 0.0, "f1_1px": 0.0, "end_point_recall": 0.0}),
])  # fmt: skip
def test_a_line_that_is_a_few_pixels_off(down, values):
    batch = tiles(((4, 3, 12), 3.0))
    found = measured((moved(truth(batch), down), batch)).compute()
    assert {name: found[name] for name in values} == values


def test_half_a_line_found_is_half_of_it():
    batch = tiles(((4, 0, 9), 3.0))
    predictions = truth(batch)
    predictions.skeleton[..., 5:] = 0.49
    values = measured((predictions, batch)).compute()
    assert values["iou"] == 0.5
    assert values["f1_0px"] == pytest.approx(2 / 3)
    assert (values["precision_1px"], values["recall_1px"]) == (1.0, 0.6)
    assert values["f1_1px"] == pytest.approx(0.75)


def test_a_diagonal_neighbour_is_further_than_a_pixel():
    batch = tiles(((4, 5, 5), 3.0))
    predictions = moved(truth(batch), 1)
    predictions = replace(predictions, skeleton=predictions.skeleton.roll(1, 3))
    assert measured((predictions, batch)).compute()["f1_1px"] == 0.0


@pytest.mark.parametrize(("degrees", "error"), [(0, 0.0), (30, 30.0), (90, 90.0), (150, 30.0), (180, 0.0)])
def test_tangents_have_no_direction(degrees, error):
    batch = tiles(((4, 0, 9), 3.0))
    doubled = torch.tensor(2 * degrees).deg2rad()
    tangent = torch.stack([doubled.cos(), doubled.sin()])[None, :, None, None].expand(1, 2, 16, 16)
    values = measured((replace(truth(batch), tangent=tangent), batch)).compute()
    assert values["tangent_error_deg"] == pytest.approx(error, abs=1e-4)


def test_width_and_offset_errors_are_pixels_on_the_true_line():
    batch = tiles(((4, 0, 9), 3.0))
    perfect = truth(batch)
    predictions = replace(
        perfect, width=perfect.width + 0.5, offset=perfect.offset + torch.tensor([0.3, -0.4])[:, None, None]
    )
    values = measured((predictions, batch)).compute()
    assert values["width_error_px"] == pytest.approx(0.5)
    assert values["offset_error_px"] == pytest.approx(0.5)


@pytest.mark.parametrize(("found", "true", "matched"), [
    ([(0, 0)], [(0, 2)], 1),
    ([(0, 0)], [(0, 3)], 0),
    ([(0, 0)], [(2, 1)], 0),
    ([(0, 0), (0, 1)], [(0, 1)], 1),
    ([(0, 1)], [(0, 0), (0, 2)], 1),
    ([(0, 0), (0, 2)], [(0, 2), (0, 4)], 2),  # the nearest first would leave a pair alone
    ([], [(0, 0)], 0),
    ([(0, 0)], [], 0),
])  # fmt: skip
def test_key_points_are_matched_one_to_one_within_two_pixels(found, true, matched):
    assert num_matched(np.array(found).reshape(-1, 2), np.array(true).reshape(-1, 2)) == matched


def test_precision_recall_and_f1_of_each_kind():
    batch = tiles(((4, 2, 12), 3.0))
    batch.target.key_points[0, 1, 4, 7] = 1
    predictions = truth(batch)
    predictions.key_points.zero_()
    predictions.key_points[0, 0, 4, 2] = predictions.key_points[0, 0, 10, 10] = 0.9
    predictions.key_points[0, 0, 4, 12] = 0.2
    predictions.key_points[0, 2, 4, 9] = 0.9
    values = measured((predictions, batch)).compute()
    table = {
        kind: tuple(values.get(f"{kind}_{part}") for part in ("precision", "recall", "f1"))
        for kind in ("end_point", "junction", "corner")
    }
    assert table == {"end_point": (0.5, 0.5, 0.5), "junction": (None, 0.0, 0.0), "corner": (0.0, None, 0.0)}


def test_a_peak_is_one_pixel_even_on_a_plateau():
    scores = torch.zeros(1, 2, 8, 8)
    scores[0, 0, 2:4, 2:4] = 1.0
    scores[0, 0, 6, 6], scores[0, 1, 0, 0] = 0.29, 0.3
    assert torch.nonzero(peaks(scores, 0.3)).tolist() == [[0, 0, 2, 2], [0, 1, 0, 0]]


def test_a_tile_without_full_labels_counts_for_neither_offset_nor_corners():
    batch = tiles(((4, 0, 9), 3.0), full=False)
    predictions = truth(batch)
    predictions.key_points[0, 2, 4, 4] = 1
    values = measured((predictions, batch)).compute()
    assert not [name for name in values if name.startswith(("offset", "corner"))]
    assert (values["width_error_px"], values["end_point_f1"]) == (0.0, 1.0)


def test_names_hold_all_that_may_come_and_nothing_comes_of_nothing():
    metric = measured()
    assert metric.compute() == {}
    empty = tiles(None)
    assert measured((truth(empty), empty)).compute() == {}
    batch = tiles(((4, 0, 9), 3.0))
    batch.target.key_points[0, 1, 4, 4] = batch.target.key_points[0, 2, 4, 6] = 1
    assert measured((truth(batch), batch)).compute().keys() == set(metric.names)
    assert set(measured(full=False).names) < set(metric.names)


def test_ranks_merged_give_the_numbers_of_one():
    batch = tiles(((4, 0, 9), 3.0), ((7, 3, 8), 2.0), None)
    predictions = moved(truth(batch), 1)
    parts = [
        (
            replace(predictions, **{name: getattr(predictions, name)[[row]] for name in vars(predictions)}),
            some(batch, row),
        )
        for row in range(3)
    ]
    first, second = measured(parts[0]), measured(parts[1], parts[2])
    first.merge(second.state())
    assert first.compute() == measured((predictions, batch)).compute()
