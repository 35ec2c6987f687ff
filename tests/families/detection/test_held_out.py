"""A part of one set is held out by the bytes of its images, in the run as in its check."""

import json
import shutil

import pytest
from annotated_parts import build, coco_values, write_set

from winnow.errors import ConfigError, DataError
from winnow.families.detection.check import check_coco
from winnow.families.detection.settings import CocoNode
from winnow.settings import build_settings

NAMES = ["car", "bus"]


@pytest.fixture
def folder(tmp_path):
    write_set(tmp_path, [["car"], ["bus"], [], ["car", "bus"], ["bus"]] * 8, NAMES)
    return tmp_path


def files(records):
    return {record.path.name for record in records}


def test_a_part_is_held_out_and_no_image_is_on_both_sides(folder):
    data = build(folder, ["train"], val_part=0.3)
    train, val = files(data.train_records), files(data.val_records)
    assert not train & val
    assert len(train | val) == 40
    assert 6 <= len(val) <= 18
    assert data.fingerprint != build(folder, ["train"], val_part=0.4).fingerprint


def test_files_that_are_added_move_none_and_a_copy_goes_with_its_picture(folder):
    before = files(build(folder, ["train"], val_part=0.3).val_records)
    content = json.loads((folder / "train.json").read_text())
    some = sorted(before)[0]
    shutil.copy(folder / "images" / some, folder / "images" / "copy.png")
    content["images"].insert(0, {"id": 99, "file_name": "copy.png", "width": 40, "height": 30})
    (folder / "train.json").write_text(json.dumps(content))
    assert files(build(folder, ["train"], val_part=0.3).val_records) == before | {"copy.png"}


def test_the_folds_hold_each_image_out_once(folder):
    held_out = [files(build(folder, ["train"], folds=4, fold=fold).val_records) for fold in range(4)]
    assert sum(map(len, held_out)) == len(set.union(*held_out)) == 40


@pytest.mark.parametrize(("values", "message"), [
    ({"val_part": 1.0}, "val_part=1.0: input should be less than 1"),
    ({"val_part": 0.2, "folds": 4}, "val_part=0.2 and folds=4 both hold a part out"),
    ({"folds": 4, "fold": 4}, "fold=4 is none of folds=4"),
    ({"fold": 1}, "fold=1 is none of folds=None"),
])  # fmt: skip
def test_what_says_no_part_is_refused(folder, values, message):
    with pytest.raises(ConfigError, match=message):
        build(folder, ["train"], **values)


def test_a_part_is_not_held_out_beside_a_validation_set(folder):
    write_set(folder, [["car"]], NAMES, split="val")
    with pytest.raises(
        ConfigError, match=r"data.val_part=0.2 holds a part of train out .*, and there is a validation set"
    ):
        build(folder, val_part=0.2)


def test_a_part_without_an_image_is_refused(folder):
    with pytest.raises(DataError, match=r"data.val_part=1e-06: of 40 images 0 are held out .* none to validate on"):
        build(folder, ["train"], val_part=1e-6)


def test_the_check_counts_the_objects_of_each_class_on_each_side(folder):
    data = build(folder, ["train"], val_part=0.3)
    settings = build_settings(CocoNode, coco_values(folder, ["train"], val_part=0.3), "data")
    report = check_coco(settings, lambda *_: None)
    for part, records in (("train", data.train_records), ("val", data.val_records)):
        labels = [label for record in records for label in record.labels.tolist()]
        assert report.objects[part] == {name: labels.count(label) for label, name in enumerate(NAMES)}
        assert min(report.objects[part].values()) > 0
