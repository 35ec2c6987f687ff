"""One ``data.root`` is enough for COCO files in the layouts that tools write; what is converted is read like its source."""

import json

import pytest
from composed import SHARED_DATA, compose_plain
from PIL import Image

from winnow.commands.cli import main
from winnow.config.moved import with_added_keys
from winnow.errors import ConfigError, DataError
from winnow.families.detection.formats.coco import read_coco
from winnow.families.detection.formats.coco_folder import coco_of_root
from winnow.families.detection.settings import CocoNode
from winnow.families.detection.sources import find_coco
from winnow.settings import build_settings


def write_split(annotations, images):
    for folder in (annotations.parent, images):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(images / "a.jpg")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0}
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
    annotations.write_text(
        json.dumps({"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]})
    )


def settings(*overrides):
    node = compose_plain("data=coco", *overrides)["data"]
    del node["_target_"]
    return build_settings(CocoNode, node, "data")


@pytest.mark.parametrize("places", [
    {split: (f"{folder}/_annotations.coco.json", folder)
     for split, folder in (("train", "train"), ("val", "valid"), ("test", "test"))},
    {split: (f"annotations/instances_{split}2017.json", f"{split}2017") for split in ("train", "val")},
    {split: (f"annotations/instances_{split}.json", f"images/{split}") for split in ("train", "val")},
    {split: (f"annotations/{split}.json", "images") for split in ("train", "val")},
    {"train": ("train/_annotations.coco.json", "train")},
])  # fmt: skip
def test_known_layouts_are_found(tmp_path, places):
    expected = {split: tuple(tmp_path / place for place in pair) for split, pair in places.items()}
    for pair in expected.values():
        write_split(*pair)
    assert coco_of_root(tmp_path) == expected
    expected.pop("test", None)
    assert find_coco(settings(f"data.root={tmp_path}")) == expected


def test_no_validation_is_taken_of_a_root_where_none_is_wanted(tmp_path):
    for split in ("train", "valid"):
        write_split(tmp_path / split / "_annotations.coco.json", tmp_path / split)
    assert list(find_coco(settings(f"data.root={tmp_path}", "data.val=null", "data.val_part=0.2"))) == ["train"]
    named = [f"data.train.images={tmp_path}", f"data.train.annotations={tmp_path}/a.json", "data.val_part=0.2"]
    assert list(find_coco(settings(*named))) == ["train"], "what is held out needs no data.val=null"


def test_a_folder_without_train_says_what_was_looked_for(tmp_path):
    write_split(tmp_path / "valid/_annotations.coco.json", tmp_path / "valid")
    with pytest.raises(DataError, match=r"no COCO files of a train split; looked for train/_annotations.coco.json"):
        coco_of_root(tmp_path)


@pytest.mark.parametrize(("overrides", "message"), [
    (["data.root=x", "data.train.images=y"], "name the data in one way"),
    (["data.train.images=x"], "data.train.annotations is null; name the file, or give data.root"),
    (["data.train.images=x", "data.train.annotations=y"], "data.val.images is null; .* or give data.val=null"),
    (["data.train.images=x", "data.train.annotations=y", "data.val.annotations=z"], "data.val.images is null"),
])  # fmt: skip
def test_paths_are_named_whole_and_in_one_way(overrides, message):
    with pytest.raises(ConfigError, match=message):
        find_coco(settings(*overrides))


def test_a_run_that_began_before_root_is_resumed_without_it():
    config = compose_plain("data=coco")
    del config["data"]["root"]
    assert with_added_keys(config)["data"]["root"] is None
    assert with_added_keys({"data": {"_target_": "mine.data"}})["data"] == {"_target_": "mine.data"}


def write_yolo(root):
    for split in ("train", "valid"):
        (root / split / "labels").mkdir(parents=True)
        (root / split / "images").mkdir()
        Image.new("RGB", (64, 48)).save(root / split / "images/a.jpg")
        (root / split / "labels/a.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (root / "data.yaml").write_text("names: [cat]\ntrain: ../train/images\nval: ../valid/images\n")


def write_voc(root):
    for split in ("train", "valid"):
        (root / split).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(root / split / "a.jpg")
        corners = "<xmin>25</xmin><ymin>13</ymin><xmax>40</xmax><ymax>36</ymax>"
        thing = f"<object><name>cat</name><bndbox>{corners}</bndbox></object>"
        (root / split / "a.xml").write_text(f"<annotation>{thing}</annotation>")


@pytest.mark.parametrize(("name", "write"), [("yolo", write_yolo), ("voc", write_voc)])
def test_a_conversion_is_data_by_its_root(tmp_path, name, write, capsys):
    write(tmp_path / "in")
    assert main(["convert", name, str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "train: 1 images, 1 boxes" in printed
    assert f"data=coco data.root={tmp_path / 'out'}" in printed
    for paths in find_coco(settings(f"data.root={tmp_path / 'out'}")).values():
        (record,) = read_coco(*paths).records
        assert record.boxes.tolist() == [[24, 12, 40, 36]]
        assert record.path.is_file()
    assert (
        main(["data", "check", f"data={name}", f"data.root={tmp_path / 'in'}", f"data.cache={tmp_path / 'cache'}"]) == 1
    )
    assert "same image in train and val" in capsys.readouterr().out  # they are, and nothing else is wrong


def test_blood_cells_by_their_root_keep_their_fingerprint(tmp_path, capsys):
    root = SHARED_DATA / "bccd"
    if not root.is_dir():
        pytest.skip("no ../shared/data")
    named = [f"data.{part}.{key}={root}/{path}" for part in ("train", "val") for key, path in
             (("images", "images"), ("annotations", f"annotations/instances_{part}.json"))]  # fmt: skip
    assert find_coco(settings(f"data.root={root}")) == find_coco(settings(*named))
    assert main(["convert", "coco", str(root), str(tmp_path)]) == 0
    assert "train: 291 images" in capsys.readouterr().out
