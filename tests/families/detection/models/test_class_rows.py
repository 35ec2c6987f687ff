"""Each detector says which of its entries hold a row per class, and weights of the same classes in another order are the same."""

import pytest
import torch
from composed import compose_plain
from detection_parts import batch, target

from winnow.families.detection.models.deformable_detr import deformable_detr_tiny
from winnow.families.detection.models.faster_rcnn import faster_rcnn_r50_fpn
from winnow.families.detection.models.fcos_tiny import fcos_tiny

BUILDERS = {
    "fcos_tiny": fcos_tiny, "deformable_detr_tiny": deformable_detr_tiny, "faster_rcnn_r50_fpn": faster_rcnn_r50_fpn,
}  # fmt: skip
THEIRS, OURS = ["bus", "car", "dog"], ["dog", "bus", "car"]


@pytest.fixture(scope="module", params=BUILDERS)
def build(request):
    values = compose_plain(f"model={request.param}")["model"]
    del values["_target_"]

    def make(classes, **changes):
        torch.manual_seed(0)
        return BUILDERS[request.param](classes, None, 20, 0.0, **{**values, "pretrained": False, **changes})

    return make


@pytest.fixture(scope="module")
def theirs(build):
    return build(THEIRS)


def test_its_class_rows_are_the_entries_whose_size_follows_the_number_of_classes(build, theirs):
    five, three = (task.model.state_dict() for task in (build([*THEIRS, "cat", "cow"]), theirs))
    grown = {name: len(five[name]) - len(three[name]) for name in three if five[name].shape != three[name].shape}
    assert grown == {name: 2 * rows for name, rows in theirs.class_rows.items()}


def test_weights_of_another_order_find_the_same_things(build, theirs, tmp_path, caplog):
    with torch.no_grad():
        for name in theirs.class_rows:
            theirs.model.get_parameter(name).normal_(std=0.1)
    torch.save({"model": theirs.model.state_dict(), "classes": THEIRS}, tmp_path / "theirs.pth")
    with caplog.at_level("INFO"):
        ours = build(OURS, pretrained=str(tmp_path / "theirs.pth"))
    assert_same_findings(theirs, ours)
    assert "follow their names" in caplog.text


def assert_same_findings(theirs, ours):
    given = batch(target([[5, 5, 40, 40]], [0]))
    theirs.model.eval(), ours.model.eval()
    with torch.inference_mode():
        expected, found = (task.predictions(task.forward(given), given)[0] for task in (theirs, ours))
    assert len(expected.labels.unique()) > 1
    assert [OURS[label] for label in found.labels] == [THEIRS[label] for label in expected.labels]
    torch.testing.assert_close((found.boxes, found.scores), (expected.boxes, expected.scores))


def test_a_folder_of_save_pretrained_is_matched_by_the_names_in_its_config(tmp_path, caplog):
    values = compose_plain("model=deformable_detr_tiny")["model"]
    del values["_target_"]
    theirs = deformable_detr_tiny(THEIRS, None, 20, 0.0, **values)
    with torch.no_grad():
        for name in theirs.class_rows:
            theirs.model.get_parameter(name).normal_(std=0.1)
    theirs.model.save_pretrained(tmp_path)
    assert_same_findings(theirs, deformable_detr_tiny(OURS, None, 20, 0.0, **values | {"pretrained": str(tmp_path)}))
    assert not [line for line in caplog.records if line.levelname == "WARNING" and "classes" in line.getMessage()]
