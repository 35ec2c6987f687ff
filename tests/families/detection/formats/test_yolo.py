"""YOLO's folders and text files become splits in pixels."""

from pathlib import Path

import pytest
from composed import compose_plain
from PIL import Image

from winnow.errors import DataError
from winnow.families.detection.check import check_yolo
from winnow.families.detection.data import yolo_data
from winnow.families.detection.formats.conversion import to_coco
from winnow.families.detection.formats.yolo import yolo_of_root
from winnow.families.detection.settings import YoloNode
from winnow.settings import build_settings

YAML = "names: [cat, dog]\ntrain: images/train\nval: images/val\n"


def write_picture(path, text=None, label=None, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (64, 48))
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, exif=exif)
    if text is not None:
        label = label or path.with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(text)


def write_set(root, text="0 0.5 0.5 0.25 0.5\n", yaml=YAML):
    for split in ("train", "val"):
        write_picture(root / f"images/{split}/a.jpg", text, root / f"labels/{split}/a.txt")
    (root / "data.yaml").write_text(yaml)


def boxes(root, split="train"):
    return [entry["bbox"] for entry in to_coco(yolo_of_root(root))[split][0]["annotations"]]


@pytest.mark.parametrize(("line", "box"), [
    ("0 0.5 0.5 0.25 0.5", [24, 12, 16, 24]),
    ("1.0 0.5 0.5 1 1", [0, 0, 64, 48]),
    ("0 0.25 0.25 0.75 0.25 0.5 0.75", [16, 12, 32, 24]),  # a triangle
    ("0 0 0 0.5 0 0.5 0.5 0 0.5", [0, 0, 32, 24]),  # four corners
])  # fmt: skip
def test_fractions_become_pixels_and_polygons_their_boxes(tmp_path, line, box):
    write_set(tmp_path, f"\ufeff{line}\n\n")
    assert boxes(tmp_path) == [box]


def test_key_points_behind_a_box_are_passed_over(tmp_path):
    write_set(tmp_path, "0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.3 0.3\n", YAML + "kpt_shape: [2, 3]\n")
    assert boxes(tmp_path) == [[24, 12, 16, 24]]


def test_the_picture_is_annotated_as_it_is_shown(tmp_path):
    write_set(tmp_path)
    write_picture(tmp_path / "images/train/a.jpg", orientation=6)
    coco = to_coco(yolo_of_root(tmp_path))["train"][0]
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (48, 64)
    assert coco["annotations"][0]["bbox"] == [18, 16, 12, 32]


@pytest.mark.parametrize("yaml", [
    "names: {0: cat, 1: dog}\ntrain: train/images\nvalid: [valid/images]\n",
    "names: [cat, dog]\ntrain: ../train/images\nval: ../valid/images\n",  # Roboflow
    "names: [cat, dog]\npath: /another/machine\ntrain: train\nval: valid\n",
    "names: [cat, dog]\ntrain: train.txt\nval: ./valid/images\ntest: nowhere\n",
])  # fmt: skip
def test_paths_are_taken_as_tools_write_them(tmp_path, yaml):
    root = tmp_path / "set"
    for folder in ("train", "valid"):
        write_picture(root / folder / "images/a.jpg", "1 0.5 0.5 0.25 0.5", root / folder / "labels/a.txt")
    (root / "train.txt").write_text("./train/images/a.jpg\n")
    (root / "data.yaml").write_text(yaml)
    splits = to_coco(yolo_of_root(root))
    assert {split: (coco["images"][0]["file_name"], coco["categories"]) for split, (coco, _) in splits.items()} == {
        split: (f"{folder}/images/a.jpg", [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}])
        for split, folder in (("train", "train"), ("val", "valid"))
    }


def test_a_list_of_classes_beside_pictures_and_texts_is_enough(tmp_path):
    write_picture(tmp_path / "a.jpg", "1 0.5 0.5 0.25 0.5")
    write_picture(tmp_path / "b.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    ((coco, counts),) = to_coco(yolo_of_root(tmp_path)).values()
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg", "b.jpg"]
    assert [entry["category_id"] for entry in coco["annotations"]] == [1]
    assert counts["images without label file, taken as without objects"] == 1


@pytest.mark.parametrize(("text", "message"), [
    ("0 0.5 0.5 0.25 0.5\n2 0.5 0.5 0.1 0.1", r"a.txt: line 2: class '2' is not one of the 2 classes of \S+data.yaml, "),
    ("cat 0.5 0.5 0.1 0.1", r"line 1: class 'cat' is not one of"),
    ("0 0.5 x 0.1 0.1", r"line 1: 'x' is no number"),
    ("0 0.5 nan 0.1 0.1", r"line 1: 'nan' is no number"),
    ("0", r"line 1: 0 numbers after the class"),
    ("0 0.5 0.5 0.1 0.1 0.9", r"line 1: 5 numbers after the class"),
    ("0 32 24 16 24", r"line 1: the box reaches from 24, 12 to 40, 36; YOLO's numbers are fractions"),
])  # fmt: skip
def test_a_line_that_can_not_be_used_is_named_by_file_and_line(tmp_path, text, message):
    write_set(tmp_path, text)
    with pytest.raises(DataError, match=message):
        to_coco(yolo_of_root(tmp_path))


@pytest.mark.parametrize(("yaml", "message"), [
    ("train: images/train\n", "names is None"),
    ("names: [cat, [dog]]\ntrain: images/train\n", r"names: 1: \['dog'\] is no number with the name"),
    ("names: [cat]\n", "there is no train"),
    ("names: [cat]\ntrain: elsewhere\n", r"train: 'elsewhere' is not there; looked for .*/elsewhere"),
    ("names: [cat]\ntrain: 3\n", "train: 3 is not there"),
    (f"names: [cat]\ntrain: {'x' * 300}\n", "train: 'x{199} is not there; looked for "),
    (f"names: [cat]\ntrain: {'../' * 9}{'x' * 300}\n", "is not there; looked for "),
    ("names: [cat]\ntrain: labels\n", "train: 'labels' holds no images"),
    ("- cat\n", "is no mapping"),
    ("names: [cat\n", "can't be read as YOLO's data.yaml"),
])  # fmt: skip
def test_a_data_yaml_that_can_not_be_used_says_why(tmp_path, yaml, message):
    write_set(tmp_path, yaml=yaml)
    with pytest.raises(DataError, match=message):
        yolo_of_root(tmp_path)


def test_a_list_of_pictures_names_those_that_are_not_there_however_long_their_names(tmp_path):
    write_set(tmp_path, yaml="names: [cat, dog]\ntrain: train.txt\n")
    (tmp_path / "train.txt").write_text(f"images/train/a.jpg\nb.jpg\n{'x' * 5000}\n")
    with pytest.raises(DataError, match=r"train.txt lists 2 images that are not there: \S+/b.jpg, \S+x …$"):
        yolo_of_root(tmp_path)


def test_pictures_of_which_none_has_a_text_are_refused(tmp_path):
    write_set(tmp_path)
    for split in ("train", "val"):
        (tmp_path / f"labels/{split}/a.txt").unlink()
    with pytest.raises(DataError, match=r"data.yaml: train: none of the 1 images has a label file, as \S+/a.txt"):
        yolo_of_root(tmp_path)
    with pytest.raises(DataError, match="neither a data.yaml with names nor a list of its classes"):
        yolo_of_root(tmp_path / "images")


def test_it_is_checked_and_built_from_its_root_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "set")
    node = compose_plain("data=yolo", f"data.root={tmp_path / 'set'}")["data"]
    assert node.pop("_target_") == f"{yolo_data.__module__}.yolo_data"
    report = check_yolo(build_settings(YoloNode, node, "data"), lambda *_: None)
    assert [part.num_annotations for part in report.splits.values()] == [1, 1]
    assert {finding.kind for _, finding in report.findings() if finding.is_problem} == {"same image in train and val"}
    assert len(list(Path(".cache/yolo").glob("instances_*.json"))) == 2
