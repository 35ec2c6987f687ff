import pytest
import torch
from transformers import DeformableDetrConfig
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss

from winnow.errors import ConfigError
from winnow.families.detection.models.matcher import SetTargets
from winnow.families.detection.models.set_criterion import CriterionSettings, SetCriterion
from winnow.settings import build_settings

PAPER = {
    "class_cost": 2.0,
    "box_cost": 5.0,
    "giou_cost": 2.0,
    "class_weight": 2.0,
    "box_weight": 5.0,
    "giou_weight": 2.0,
    "focal_alpha": 0.25,
    "focal_gamma": 2.0,
    "auxiliary": True,
}
NUM_CLASSES = 4


def criterion(**changes):
    return SetCriterion(build_settings(CriterionSettings, {**PAPER, **changes}, "model.criterion"))


def random_boxes(*shape):
    return torch.cat([torch.rand(*shape, 2) * 0.6 + 0.2, torch.rand(*shape, 2) * 0.3 + 0.05], dim=-1)


def random_case(counts, num_layers=3, num_queries=25):
    torch.manual_seed(1)
    logits = torch.randn(num_layers, len(counts), num_queries, NUM_CLASSES, requires_grad=True)
    boxes = random_boxes(num_layers, len(counts), num_queries).requires_grad_()
    true_boxes = [random_boxes(n) for n in counts]
    return logits, boxes, true_boxes, [torch.randint(0, NUM_CLASSES, (n,)) for n in counts]


def theirs(logits, boxes, true_boxes, labels):
    """Return transformers' loss dict with the paper's costs; its terms are not weighted, ``loss_ce_0`` is the first layer's."""
    config = DeformableDetrConfig(
        backbone_config={"model_type": "resnet"},
        num_labels=NUM_CLASSES,
        class_cost=2,
        auxiliary_loss=True,
        decoder_layers=len(logits),
    )
    targets = [{"class_labels": ids, "boxes": image} for ids, image in zip(labels, true_boxes, strict=True)]
    return DeformableDetrForObjectDetectionLoss(logits[-1], targets, logits.device, boxes[-1], config, logits, boxes)[1]


@pytest.mark.parametrize("counts", [[3, 1, 5], [0, 4], [1]])
@pytest.mark.parametrize(("name", "weight"), [("loss_ce", 2.0), ("loss_bbox", 5.0), ("loss_giou", 2.0)])
def test_terms_of_one_batch_are_transformers(counts, name, weight):
    logits, boxes, true_boxes, labels = random_case(counts)
    ours = criterion()(logits, boxes, SetTargets.from_images(true_boxes, labels), sum(counts))
    expected = theirs(logits, boxes, true_boxes, labels)
    torch.testing.assert_close(ours[name], weight * expected[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        ours[f"{name}_aux"], weight * (expected[f"{name}_0"] + expected[f"{name}_1"]), rtol=1e-4, atol=1e-5
    )


def gradients_of_split(loss_of, logits):
    """Return the gradient of the summed losses of both images, and of each image on its own, with respect to the logits."""
    together = torch.autograd.grad(loss_of(slice(0, 2), 21), logits)[0]
    apart = torch.autograd.grad(loss_of(slice(0, 1), 1) + loss_of(slice(1, 2), 20), logits)[0]
    return together, apart


def test_micro_batches_of_1_and_20_boxes_add_up_to_their_batch():
    logits, boxes, true_boxes, labels = random_case([1, 20])

    def loss(part, _):
        targets = SetTargets.from_images(true_boxes[part], labels[part])
        return sum(criterion()(logits[:, part], boxes[:, part], targets, 21).values())

    together, apart = gradients_of_split(loss, logits)
    torch.testing.assert_close(apart, together)


def test_transformers_weighs_the_same_micro_batches_by_their_own_boxes():
    logits, boxes, true_boxes, labels = random_case([1, 20])

    def loss(part, _):
        return theirs(logits[:, part], boxes[:, part], true_boxes[part], labels[part])["loss_ce"]

    together, apart = gradients_of_split(loss, logits)
    assert apart.norm() / 2 > 3 * together.norm()


@pytest.mark.parametrize("counts", [[0, 0], [0, 3]])
def test_images_without_boxes_still_teach_that_nothing_is_there(counts):
    logits, boxes, true_boxes, labels = random_case(counts)
    terms = criterion()(logits, boxes, SetTargets.from_images(true_boxes, labels), 3)
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert logits.grad[:, 0].abs().sum() > 0
    assert boxes.grad is not None
    assert torch.isfinite(boxes.grad).all()


def test_more_boxes_than_queries_are_matched_as_far_as_queries_go():
    logits, boxes, true_boxes, labels = random_case([40], num_queries=10)
    terms = criterion()(logits, boxes, SetTargets.from_images(true_boxes, labels), 40)
    assert torch.isfinite(sum(terms.values()))


@pytest.mark.parametrize("where", ["logits", "boxes"])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("counts", [[2, 3], [0, 0]])
def test_one_non_finite_output_makes_the_loss_non_finite(where, layer, value, counts):
    logits, boxes, true_boxes, labels = random_case(counts)
    outputs = {"logits": logits.detach(), "boxes": boxes.detach()}
    outputs[where][layer, 1, 7] = value
    terms = criterion()(outputs["logits"], outputs["boxes"], SetTargets.from_images(true_boxes, labels), 5)
    assert not torch.isfinite(sum(terms.values()))


def test_half_precision_terms_are_computed_in_float32():
    logits, boxes, true_boxes, labels = random_case([3, 5])
    logits, boxes, targets = logits.bfloat16(), boxes.bfloat16(), SetTargets.from_images(true_boxes, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = criterion()(logits, boxes, targets, 8)
    torch.testing.assert_close(terms, criterion()(logits.float(), boxes.float(), targets, 8), rtol=0, atol=0)


def test_without_auxiliary_losses_only_the_last_layer_learns():
    logits, boxes, true_boxes, labels = random_case([3, 5])
    terms = criterion(auxiliary=False)(logits, boxes, SetTargets.from_images(true_boxes, labels), 8)
    sum(terms.values()).backward()
    assert set(terms) == {"loss_ce", "loss_bbox", "loss_giou"}
    assert logits.grad[:-1].abs().sum() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_cost": -1.0}, "model.criterion.class_cost=-1.0"),
        ({"focal_alpha": 2.0}, "model.criterion.focal_alpha=2.0"),
        ({"class_cost": 0.0, "box_cost": 0.0, "giou_cost": 0.0}, "all 0"),
        ({"giou_coefficient": 2.0}, "model.criterion.giou_coefficient=2.0 is not a known key"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        criterion(**changes)


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_all_but_the_last_layer_are_auxiliary(num_layers):
    logits, boxes, true_boxes, labels = random_case([3, 1], num_layers)
    terms = criterion()(logits, boxes, SetTargets.from_images(true_boxes, labels), 4.0)
    names = ["loss_ce", "loss_bbox", "loss_giou"]
    assert list(terms) == names + [f"{name}_aux" for name in names] * (num_layers > 1)
    alone = [
        criterion()(logits[[layer]], boxes[[layer]], SetTargets.from_images(true_boxes, labels), 4.0)
        for layer in range(num_layers)
    ]
    for name in terms:
        parts = [one[name.removesuffix("_aux")] for one in alone]
        expected = sum(parts[:-1]) if name.endswith("_aux") else parts[-1]
        torch.testing.assert_close(terms[name], expected)
