import os
from functools import partial

import pytest
import torch
from detection_parts import batch, target
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from winnow.errors import ConfigError, WeightsError
from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.detection.models.faster_rcnn import COCO_WEIGHTS, faster_rcnn_r50_fpn

CLASSES = ["car", "bus"]
TERMS = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    return build(trainable_layers=5)


def build(**changes):
    values = {"pretrained": False, "offline": True, "trainable_layers": 3, **changes}
    return faster_rcnn_r50_fpn(CLASSES, partial(CocoAp, CLASSES), 20, 0.0, **values)


@pytest.fixture
def data():
    boxes = [[5, 5, 40, 40], [30, 20, 90, 60]]
    return batch(
        target(boxes, [0, 1], size=(64, 96), original_size=(128, 192)),
        target([], [], size=(64, 64), image_id=2),
        padded=(96, 128),
    )


@pytest.mark.parametrize("training", [True, False])
def test_losses_and_predictions_come_from_one_forward_in_either_mode(task, data, training):
    task.model.train(training)
    outputs = task.forward(data)
    terms = task.losses(outputs, data, task.loss_count(data))
    found = task.predictions(outputs, data)
    assert terms.keys() == TERMS
    assert all(torch.isfinite(term) for term in terms.values())
    assert task.model.rpn.training == task.model.roi_heads.training == training
    assert len(found) == 2


def test_predictions_lie_in_the_original_image(task, data):
    (first, second) = task.predictions(task.forward(data), data)
    assert 0 < len(first.scores) <= 20
    assert (first.boxes[:, [0, 2]] <= 192).all()
    assert first.boxes[:, 2].max() > 96
    assert (second.boxes <= 64).all()
    assert set(first.labels.tolist()) <= {0, 1}


def test_predictions_are_those_of_the_box_heads_bit_for_bit(task, data):
    task.model.eval()
    outputs, images = task.forward(data), ImageList(data.images, [truth.size for truth in data.targets])
    with torch.no_grad():
        proposals, _ = task.model.rpn(images, outputs)
        expected, _ = task.model.roi_heads(outputs, proposals, images.image_sizes)
    for found, theirs, truth in zip(task.predictions(outputs, data), expected, data.targets, strict=True):
        assert found.boxes.equal(theirs["boxes"] * torch.tensor(truth.scale * 2))
        assert found.scores.equal(theirs["scores"])
        assert found.labels.equal(theirs["labels"] - 1)


def test_terms_are_weighted_by_images(task, data):
    torch.manual_seed(1)
    one = task.losses(task.forward(data), data, {"images": 2.0})
    torch.manual_seed(1)
    half = task.losses(task.forward(data), data, {"images": 4.0})
    for name, term in one.items():
        torch.testing.assert_close(half[name] * 2, term)


def test_a_gradient_reaches_the_backbone(task, data):
    sum(task.losses(task.forward(data), data, {"images": 2.0}).values()).backward()
    assert task.model.backbone.body.conv1.weight.grad.abs().sum() > 0


def test_nan_in_gives_a_non_finite_loss(task, data):
    outputs = {name: feature * torch.nan for name, feature in task.forward(data).items()}
    assert not torch.isfinite(sum(task.losses(outputs, data, {"images": 2.0}).values()))


def test_weights_that_are_not_there_offline_are_an_error_that_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=str(tmp_path)):
        build(pretrained=True)


def test_if_available_starts_at_random_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    build(pretrained="if_available")
    assert any(record.levelname == "WARNING" and "NO PRETRAINED WEIGHTS" in record.message for record in caplog.records)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="model.trainable_layers=9"):
        build(trainable_layers=9)


def test_the_frozen_norms_of_torchvisions_coco_weights_have_the_eps_that_they_were_trained_with(tmp_path, monkeypatch):
    """As ``fasterrcnn_resnet50_fpn(weights=…)`` sets it after loading them."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / COCO_WEIGHTS.url.rpartition("/")[2]
    file.parent.mkdir()
    torch.save(fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict(), file)
    own = tmp_path / "own.pth"
    os.link(file, own)
    given = {"published": True, "the_same_file": str(file), "other_weights": str(own)}
    assert {name: eps_of_norms(build(pretrained=path, norm_eps=None)) for name, path in given.items()} == {
        "published": {0.0}, "the_same_file": {0.0}, "other_weights": {1e-5},
    }  # fmt: skip
    assert eps_of_norms(build(pretrained=str(own), norm_eps=0.0)) == {0.0}
    assert eps_of_norms(build(pretrained=True)) == {1e-5}, "as it was before there was the key"


def eps_of_norms(task):
    return {module.eps for module in task.model.modules() if isinstance(module, FrozenBatchNorm2d)}
