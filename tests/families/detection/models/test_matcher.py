import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou
from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher

from winnow.errors import DataError
from winnow.families.detection.models.matcher import MatchingCosts, SetTargets, corners, generalized_iou, match

PAPER = MatchingCosts(class_cost=2, box_cost=5, giou_cost=2, focal_alpha=0.25, focal_gamma=2)


def random_boxes(*shape):
    return torch.cat([torch.rand(*shape, 2) * 0.6 + 0.2, torch.rand(*shape, 2) * 0.3 + 0.05], dim=-1)


def random_case(counts, num_layers=3, num_queries=12, num_classes=4):
    torch.manual_seed(0)
    logits = torch.randn(num_layers, len(counts), num_queries, num_classes)
    boxes, labels = [random_boxes(n) for n in counts], [torch.randint(0, num_classes, (n,)) for n in counts]
    return logits, random_boxes(num_layers, len(counts), num_queries), boxes, labels


def test_giou_is_torchvisions():
    boxes, others = corners(random_boxes(7)), corners(random_boxes(5))
    torch.testing.assert_close(generalized_iou(boxes[:, None], others), generalized_box_iou(boxes, others))


def test_corners_are_torchvisions():
    boxes = random_boxes(6)
    torch.testing.assert_close(corners(boxes), box_convert(boxes, "cxcywh", "xyxy"))


def test_giou_of_boxes_without_area_is_finite_and_of_nan_is_nan():
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert torch.isfinite(generalized_iou(point, point)).all()
    assert torch.isnan(generalized_iou(point * torch.nan, point)).all()


@pytest.mark.parametrize("counts", [[3, 1, 5], [0, 4], [12, 2], [20, 3], [1]])
def test_every_layer_is_matched_as_by_transformers(counts):
    logits, boxes, true_boxes, labels = random_case(counts)
    theirs = DeformableDetrHungarianMatcher(class_cost=2, bbox_cost=5, giou_cost=2)
    targets = [{"class_labels": ids, "boxes": image} for ids, image in zip(labels, true_boxes, strict=True)]
    matches = match(logits, boxes, SetTargets.from_images(true_boxes, labels), PAPER)
    for layer in range(len(logits)):
        expected = theirs({"logits": logits[layer], "pred_boxes": boxes[layer]}, targets)
        for image, (queries, columns) in enumerate(expected):
            chosen = matches.images == image
            assert matches.queries[layer, chosen].tolist() == queries.tolist()
            assert matches.targets[layer, chosen].tolist() == columns.tolist()


@pytest.mark.parametrize("num_layers", [1, 3])
def test_no_boxes_at_all_give_no_pairs(num_layers):
    logits, boxes, true_boxes, labels = random_case([0, 0], num_layers)
    matches = match(logits, boxes, SetTargets.from_images(true_boxes, labels), PAPER)
    assert matches.images.shape == (0,)
    assert matches.queries.shape == matches.targets.shape == (num_layers, 0)
    assert {part.dtype for part in vars(matches).values()} == {torch.int64}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_predictions_are_matched_without_an_error(value):
    logits, boxes, true_boxes, labels = random_case([3, 2])
    logits[0], boxes[1] = value, value
    matches = match(logits, boxes, SetTargets.from_images(true_boxes, labels), PAPER)
    assert matches.queries.shape == (3, 5)


@pytest.mark.parametrize("wrong", [4, -1])
def test_a_class_id_outside_the_classes_is_named(wrong):
    logits, boxes, true_boxes, labels = random_case([3, 2])
    labels[1][0] = wrong
    with pytest.raises(DataError, match=rf"class id {wrong} in image 1 .* allowed: 0…3"):
        match(logits, boxes, SetTargets.from_images(true_boxes, labels), PAPER)


def test_half_precision_is_matched_in_float32():
    logits, boxes, true_boxes, labels = random_case([5, 3])
    targets = SetTargets.from_images(true_boxes, labels)
    logits, boxes = logits.bfloat16(), boxes.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = match(logits, boxes, targets, PAPER)
    expected = match(logits.float(), boxes.float(), targets, PAPER)
    assert torch.equal(found.queries, expected.queries)
