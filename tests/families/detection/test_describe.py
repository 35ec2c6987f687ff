"""What a folder holds is recognised and counted, and the command that is named trains on it."""

import json
import shlex

import pytest
from composed import SHARED_DATA, compose_plain
from PIL import Image

from winnow.commands.cli import main
from winnow.families.detection.describe import describe_data

TEXT = "0 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n"


def write_yolo(root):
    for split, text in (("train", TEXT), ("valid", "")):
        (root / split / "labels").mkdir(parents=True)
        (root / split / "images").mkdir()
        Image.new("RGB", (64, 48 if text else 40)).save(root / split / "images/a.jpg")
        (root / split / "labels/a.txt").write_text(text)
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: ../train/images\nval: ../valid/images\n")


def write_voc(root, split="train"):
    (root / split).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(root / split / "a.jpg")
    corners = "<xmin>25</xmin><ymin>13</ymin><xmax>40</xmax><ymax>36</ymax>"
    (root / split / "a.xml").write_text(
        f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
    )


@pytest.mark.parametrize("name", ["cells", "my cells (1), it's"])
def test_the_named_command_trains_on_the_folder_that_was_described(tmp_path, name, capsys):
    write_yolo(tmp_path / name)
    assert main(["data", "describe", str(tmp_path / name)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "format: YOLO",
        "train: 1 images of 64×48 px, 2 boxes, 0 images without any",
        "val: 1 images of 64×40 px, 0 boxes, 1 images without any",
        "class cat: 1 train, 0 val",
        "class dog: 1 train, 0 val",
    ]
    command = shlex.split(lines[5].removeprefix("train with: "))
    assert command[:2] == ["winnow", "train"]
    node = compose_plain(*command[2:])["data"]
    assert (node["name"], node["root"]) == ("yolo", str(tmp_path / name))


def test_without_a_validation_set_the_named_command_holds_a_part_out(tmp_path, capsys):
    write_voc(tmp_path / "cats")
    assert main(["data", "describe", str(tmp_path / "cats")]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("train with: "))
    assert compose_plain(*command[2:])["data"]["val_part"] == 0.15


def test_voc_and_coco_files_are_recognised(tmp_path):
    write_voc(tmp_path / "voc")
    found = describe_data(tmp_path / "voc")
    assert (found.overrides["data"], found.splits["train"].boxes_of) == ("voc", {"cat": 1})
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [],
        "categories": [],
    }
    (tmp_path / "mine.json").write_text(json.dumps(content))
    assert describe_data(tmp_path / "mine.json").splits["all"].num_empty == 1
    (tmp_path / "export/train").mkdir(parents=True)
    (tmp_path / "export/train/_annotations.coco.json").write_text(json.dumps(content))
    assert describe_data(tmp_path / "export").format == "COCO JSON, Roboflow's export"


def test_a_folder_without_a_train_split_and_one_of_nothing_known_say_so(tmp_path, capsys):
    assert main(["data", "describe", str(tmp_path)]) == 1
    assert "holds nothing that is known here; looked for COCO JSON" in capsys.readouterr().err
    write_voc(tmp_path, "valid")
    assert main(["data", "describe", str(tmp_path)]) == 1
    assert "has VOC annotations in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "name", "train"), [("bccd", "coco", 291), ("bdd100k_mini/bdd100k", "bdd100k", None)]
)
def test_real_sets_are_recognised(folder, name, train):
    if not (SHARED_DATA / folder).is_dir():
        pytest.skip("no ../shared/data")
    found = describe_data(SHARED_DATA / folder)
    assert found.overrides["data"] == name
    assert found.splits["train"].num_images == (train or found.splits["train"].num_images) > 0
    assert sum(found.splits["train"].boxes_of.values()) == found.splits["train"].num_boxes > 0


def test_what_is_odd_is_noted_with_the_override_to_give(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (100, 100)).save(tmp_path / "train/a.png")
    annotations = [
        {"id": n, "image_id": "1", "category_id": 1, "bbox": [0.1, 0.01 * n, 0.5, 0.5], "iscrowd": 0} for n in range(25)
    ]
    content = {
        "images": [{"id": 1, "file_name": "A.png"}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "x"}],
    }
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps(content))
    assert main(["data", "describe", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "train: 1 images of 100×100 px" in printed
    assert "  1 × size missing, taken from the image" in printed
    assert "  25 × number of an annotation written as text" in printed
    assert "100% as x, y, width, height as fractions of the image (data.box_unit=fraction)" in printed


def test_a_packed_file_is_named(tmp_path, capsys):
    (tmp_path / "labels.json.gz").write_bytes(b"\x1f\x8b\x08\x00")
    assert main(["data", "describe", str(tmp_path / "labels.json.gz")]) == 1
    assert "labels.json.gz is packed with gzip: gunzip it first" in capsys.readouterr().err
