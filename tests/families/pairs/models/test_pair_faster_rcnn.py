import os
from collections import OrderedDict
from dataclasses import replace
from functools import partial

import pytest
import torch
from composed import compose_plain
from pair_model_parts import CLASSES, pair_batch, persons, tiny_task
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.ops import FrozenBatchNorm2d

from winnow.errors import ConfigError, WeightsError
from winnow.families.detection.models.mobilenet_fpn import IMAGENET_WEIGHTS
from winnow.families.pairs.metrics.pair_metric import PairMetric
from winnow.families.pairs.models.detector import region_pool
from winnow.families.pairs.models.fusion import GatedFusion
from winnow.families.pairs.models.network import ModalityNorms
from winnow.families.pairs.models.pair_faster_rcnn import pair_faster_rcnn

FUSIONS = ["visible", "infrared", "early", "mid", "gated", "late"]
TERMS = ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"]


@pytest.fixture
def data():
    return pair_batch(persons([10, 5, 24, 33], [40, 20, 60, 60]), persons(image_id=2))


def large_task(**changes):
    values = compose_plain("model=pair_faster_rcnn")["model"]
    values = {key: value for key, value in values.items() if key != "_target_"} | {"pretrained": False} | changes
    torch.manual_seed(0)
    return pair_faster_rcnn(CLASSES, partial(PairMetric, CLASSES), 20, 0.0, **values)


def terms_of(task, data):
    return task.losses(task.forward(data), data, task.loss_count(data))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_trains_all_of_its_weights_and_predicts_by_the_same_path(fusion, data):
    task = tiny_task(fusion=fusion)
    terms = terms_of(task, data)
    names = [f"{term}_{name}" for name in ("visible", "infrared") for term in TERMS] if fusion == "late" else TERMS
    assert sorted(terms) == sorted(names)
    sum(terms.values()).backward()
    assert [name for name, value in task.model.named_parameters() if value.grad is None] == []
    training, evaluated = (terms_of(task, data) for mode in (True, False) if task.model.train(mode))
    assert all(training[name].equal(evaluated[name]) for name in names)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_both_images_reach_the_loss_unless_the_fusion_has_one(fusion, data):
    task = tiny_task(fusion=fusion)
    before = terms_of(task, data)
    changed = []
    for name, channels in (("visible", slice(0, 3)), ("infrared", slice(3, 4))):
        images = data.images.clone()
        images[:, channels] = 255 - images[:, channels]
        other = terms_of(task, replace(data, images=images))
        if any(not before[term].equal(other[term]) for term in before):
            changed.append(name)
    assert changed == ([fusion] if fusion in ("visible", "infrared") else ["visible", "infrared"])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_lies_in_the_channels_of_an_absent_modality_is_never_seen(fusion, data):
    task = tiny_task(fusion=fusion)
    one, other = data.images.clone(), data.images.clone()
    other[:, 3] = 7
    absent = torch.tensor([[True, False]] * 2)
    first, second = (terms_of(task, replace(data, images=images, present=absent)) for images in (one, other))
    assert all(first[name].equal(second[name]) for name in first)


def test_a_pair_whose_modality_is_absent_gets_no_boxes_of_its_detector():
    task = tiny_task(fusion="late", late_score="max")
    whole, alone = (
        pair_batch(persons([10, 5, 24, 33]), present=[present]) for present in ([True, True], [True, False])
    )
    of_pair, of_visible = (task.predictions(task.forward(batch), batch)[0] for batch in (whole, alone))
    visible = tiny_task(fusion="visible")
    mine = {name: value for name, value in task.model.state_dict().items() if "infrared" not in name}
    assert visible.model.load_state_dict(mine)
    expected = visible.predictions(visible.forward(alone), alone)[0]
    assert of_visible.boxes.equal(expected.boxes)
    assert of_visible.scores.equal(expected.scores)
    assert not (len(of_pair.scores) == len(expected.scores) and of_pair.boxes.equal(expected.boxes))


def test_one_backbone_for_both_has_half_the_weights_and_own_norms_their_own():
    counts = [
        sum(value.numel() for value in tiny_task(**changes).model.backbones.parameters())
        for changes in ({}, {"shared_backbone": True}, {"shared_backbone": True, "own_norms": True})
    ]
    stem = 8 * 3 * 9 - 8 * 1 * 9  # of three channels instead of one
    norms = sum(2 * (channels + channels) for channels in (8, 8, 16, 16))
    assert counts[0] + stem == 2 * counts[1]
    assert counts[2] == counts[1] + norms


def test_own_norms_act_on_their_modality_alone():
    norm = ModalityNorms(nn.GroupNorm(1, 4))
    nn.init.constant_(norm.infrared.weight, 2.0)
    features = torch.rand(2, 4, 3, 3)
    out = norm(features.repeat(2, 1, 1, 1))
    torch.testing.assert_close(out[2:], 2 * out[:2])


def test_gates_begin_with_the_mean_and_have_values_for_each_modality():
    fusion = GatedFusion(["0"], 4)
    visible, infrared = (OrderedDict({"0": torch.rand(1, 4, 3, 3)}) for _ in range(2))
    torch.testing.assert_close(fusion(visible, infrared)["0"], (visible["0"] + infrared["0"]) / 2)
    nn.init.constant_(fusion.gates["0"].bias[:4], 100.0)
    nn.init.constant_(fusion.gates["0"].bias[4:], -100.0)
    torch.testing.assert_close(fusion(visible, infrared)["0"], visible["0"])


def test_pyramids_before_fusion_are_given_by_modality(data):
    outputs = tiny_task(fusion="mid").forward(data)
    assert list(outputs.modalities) == ["visible", "infrared"]
    assert {tuple(features.shape[:2]) for features in outputs.modalities["infrared"].values()} == {(2, 16)}
    assert tiny_task(fusion="early").forward(data).modalities == {}


def test_regions_are_pooled_at_the_true_strides_whatever_the_padding():
    """torchvision takes the strides from the first batch's sizes without padding, and would take 2 for 4 here."""
    pool = region_pool((4, 8), 1)
    rows = torch.arange(24.0).expand(1, 1, 24, 24)
    features = {"0": rows, "1": torch.zeros(1, 1, 12, 12)}
    (found,) = pool(features, [torch.tensor([[8.0, 8, 36, 36]])], [(40, 40)])
    torch.testing.assert_close(found[0, 0], torch.arange(7.0) + 2.5)


@pytest.mark.parametrize(("changes", "message"), [
    ({"fusion": "early", "shared_backbone": True}, "model.shared_backbone=true, but model.fusion=early has one backbone"),
    ({"own_norms": True}, "model.own_norms=true needs model.shared_backbone=true"),
    ({"anchor_sizes": [20.0, 32.0]}, "model.anchor_sizes has 2 sizes; allowed: 3"),
    ({"fusion": "middle"}, "model.fusion='middle'"),
    ({"channels": [8, 8, 12, 16]}, "model.channels.* must be positive multiples of 8"),
    ({"pixel_std": [1.0, 1.0, 1.0, 0.0]}, "model.pixel_std.* must be above 0"),
    ({"pretrained": True}, "no weights of this model are published"),
])  # fmt: skip
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_task(**changes)


def test_layers_that_a_backbone_does_not_have_can_not_train():
    assert large_task(backbone="mobilenet_v2", trainable_layers=6)
    with pytest.raises(ConfigError, match="model.trainable_layers=6: resnet50 has 5"):
        large_task(trainable_layers=6)


def test_the_large_one_takes_imagenets_weights_in_each_backbone(tmp_path, monkeypatch, data):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=str(tmp_path)):
        large_task(backbone="mobilenet_v2", pretrained=True, offline=True)
    file = tmp_path / "checkpoints" / os.path.basename(IMAGENET_WEIGHTS.url)
    file.parent.mkdir()
    classifier = mobilenet_v2(weights=None)
    torch.save(classifier.state_dict(), file)
    task = large_task(backbone="mobilenet_v2", trainable_layers=5, pretrained=True, offline=True)
    visible, infrared = (task.model.backbones[name].body.state_dict() for name in ("visible", "infrared"))
    rgb = classifier.features[0][0].weight.detach()
    assert visible["0.0.weight"].equal(rgb)
    assert infrared["0.0.weight"].equal(rgb.sum(dim=1, keepdim=True))
    assert visible["5.conv.0.0.weight"].equal(infrared["5.conv.0.0.weight"])
    assert isinstance(task.model.backbones["infrared"].body["0"][1], FrozenBatchNorm2d)
    frozen = {name for name, value in task.model.named_parameters() if not value.requires_grad}
    assert {name.split(".body.")[1].split(".")[0] for name in frozen} == {"0", "1"}
    assert torch.isfinite(sum(terms_of(task, data).values()))


def test_a_path_may_name_weights_of_the_whole_model(tmp_path):
    file = tmp_path / "whole.pth"
    trained = tiny_task()
    with torch.no_grad():
        for value in trained.model.parameters():
            value.add_(1.0)
    torch.save(trained.model.state_dict(), file)
    again = tiny_task(pretrained=str(file)).model.state_dict()
    assert all(again[name].equal(value) for name, value in trained.model.state_dict().items())
