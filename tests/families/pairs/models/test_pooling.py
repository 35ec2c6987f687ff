import pytest
import torch

from winnow.families.pairs.models.pooling import pooled

A, NEAR_A, B, C = [10.0, 10, 30, 50], [11.0, 10, 31, 50], [100.0, 10, 120, 50], [60.0, 10, 80, 50]


def found(*boxes_and_scores, label=1):
    boxes = torch.tensor([box for box, _ in boxes_and_scores]).reshape(-1, 4)
    scores = torch.tensor([score for _, score in boxes_and_scores], dtype=torch.float32)
    return {"boxes": boxes, "scores": scores, "labels": torch.full((len(scores),), label)}


def results(rule, *detectors, most=10):
    out = pooled(detectors, rule, 0.5, most)
    return [
        (box, pytest.approx(score)) for box, score in zip(out["boxes"].tolist(), out["scores"].tolist(), strict=True)
    ]


VISIBLE, INFRARED = found((A, 0.9), (B, 0.8)), found((NEAR_A, 0.7), (C, 0.6))


def test_by_max_the_best_score_of_overlapping_boxes_stays():
    assert results("max", VISIBLE, INFRARED) == [(A, 0.9), (B, 0.8), (C, 0.6)]


def test_by_mean_a_box_without_a_partner_counts_half():
    assert results("mean", VISIBLE, INFRARED) == [(A, 0.8), (B, 0.4), (C, 0.3)]


def test_by_mean_the_order_is_that_of_the_new_scores():
    assert results("mean", found((B, 0.9), (A, 0.6)), found((NEAR_A, 0.6))) == [(A, 0.6), (B, 0.45)]
    assert results("mean", found((B, 0.9), (A, 0.6)), found((NEAR_A, 0.6)), most=1) == [(A, 0.6)]


def test_boxes_of_another_class_are_no_partners():
    other = found((A, 0.7), label=2)
    assert results("mean", found((A, 0.9)), other) == [(A, 0.45), (A, 0.35)]


def test_a_partner_counts_once():
    """It overlaps both boxes of the other detector, and was suppressed by the first."""
    first, second, between = [0.0, 0, 20, 40], [12.0, 0, 32, 40], [6.0, 0, 26, 40]
    assert results("mean", found((first, 0.9), (second, 0.8)), found((between, 0.7))) == [(first, 0.8), (second, 0.4)]


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_nothing_found_is_nothing(rule):
    assert results(rule, found(), found()) == []
    assert len(results(rule, found(), INFRARED)) == 2
