"""Folders of Pascal VOC, in the layouts that tools write, become splits."""

import json
from pathlib import Path

import pytest
from annotated_parts import LOADING
from composed import SHARED_DATA, compose_plain
from PIL import Image

from winnow.data.image import read_image
from winnow.data.plan import LoadingSettings
from winnow.errors import ConfigError, DataError
from winnow.families.detection.check import check_voc, find_voc
from winnow.families.detection.data import voc_data
from winnow.families.detection.formats.coco import read_coco
from winnow.families.detection.formats.conversion import to_coco
from winnow.families.detection.formats.voc_folder import voc_of_parts, voc_of_root
from winnow.families.detection.settings import VocNode
from winnow.settings import build_settings


def an_object(name="cat", corners=(1, 1, 10, 20), difficult=0):
    tags = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{tags}</bndbox></object>"


def write_picture(path, size=(64, 48), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, exif=exif)


def write_xml(path, *objects, size=(64, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    said = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    path.write_text(f"<annotation><filename>x</filename>{said}{''.join(objects)}</annotation>")


def write_pair(folder, name, *objects, labels=None, **size):
    write_picture(folder / f"{name}.jpg")
    write_xml((labels or folder) / f"{name}.xml", *(objects or [an_object()]), **size)


def settings(tmp_path, **values):
    node = compose_plain("data=voc")["data"]
    del node["_target_"]
    return build_settings(VocNode, {**node, "cache": str(tmp_path / "cache"), **values}, "data")


def build_voc(root, **values):
    node = (
        compose_plain("data=voc")["data"] | {"root": str(root), "cache": str(root / "cache"), "image_size": 32} | values
    )
    del node["_target_"]
    return voc_data(loading=LoadingSettings(**LOADING), **node)


def coco_of(root, split="train"):
    return to_coco(voc_of_root(root))[split][0]


def test_corners_count_from_one_and_difficult_objects_are_ignored(tmp_path):
    write_pair(tmp_path, "a", an_object(corners=(1, 1, 64, 48)), an_object("dog", (11, 5, 20, 9.5), difficult=1))
    coco = coco_of(tmp_path)
    assert [(entry["bbox"], entry["category_id"], entry["iscrowd"]) for entry in coco["annotations"]] == [
        ([0, 0, 64, 48], 1, 0), ([10, 4, 10, 5.5], 2, 1),
    ]  # fmt: skip
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


@pytest.mark.parametrize(("said", "stored", "orientation", "size"), [
    ((640, 480), (64, 48), None, (64, 48)),
    ((0, 0), (64, 48), None, (64, 48)),
    (None, (64, 48), None, (64, 48)),
    ((48, 64), (64, 48), None, (64, 48)),  # exchanged
    ((48, 64), (64, 48), 6, (48, 64)),  # annotated as shown
    ((64, 48), (64, 48), 6, (64, 48)),  # annotated as stored
])  # fmt: skip
def test_the_pictures_own_size_wins_and_the_picture_can_be_read_with_it(tmp_path, said, stored, orientation, size):
    write_picture(tmp_path / "a.jpg", stored, orientation)
    write_xml(tmp_path / "a.xml", an_object(), size=said)
    image = coco_of(tmp_path)["images"][0]
    assert (image["width"], image["height"]) == size
    assert read_image(tmp_path / "a.jpg", *size).shape == (3, size[1], size[0])


def layout_of_the_challenge(root):
    base = root / "VOCdevkit/VOC2012"
    for name in ("a", "b 1", "c"):
        write_pair(base / "JPEGImages", name, labels=base / "Annotations")
    lists = base / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb 1  1\n")
    (lists / "val.txt").write_text("c.jpg\n")
    (lists / "test.txt").write_text("z\n")


def layout_of_roboflow(root):
    for folder, names in (("train", ("a", "b 1")), ("valid", ("c",))):
        for name in names:
            write_pair(root / folder, name)


def layout_of_folders_apart(root):
    for folder, names in (("train", ("a", "b 1")), ("val", ("c",))):
        for name in names:
            write_pair(root / folder / "images", name, labels=root / folder / "xml/deep")


@pytest.mark.parametrize("layout", [layout_of_the_challenge, layout_of_roboflow, layout_of_folders_apart])
def test_the_splits_of_known_layouts_are_found(tmp_path, layout):
    layout(tmp_path)
    splits = to_coco(voc_of_root(tmp_path))
    names = {split: [Path(image["file_name"]).name for image in coco["images"]] for split, (coco, _) in splits.items()}
    assert names == {"train": ["a.jpg", "b 1.jpg"], "val": ["c.jpg"]}


def test_equal_names_in_sub_folders_belong_to_the_pictures_beside_them(tmp_path):
    for folder, corner in (("x", 10), ("y", 20)):
        write_pair(tmp_path / "JPEGImages" / folder, "a", an_object(corners=(1, 1, corner, 9)),
                   labels=tmp_path / "Annotations" / folder)  # fmt: skip
    coco = to_coco(voc_of_parts({"train": (tmp_path / "JPEGImages", tmp_path / "Annotations")}))["train"][0]
    found = {
        image["file_name"]: entry["bbox"][2] for image, entry in zip(coco["images"], coco["annotations"], strict=True)
    }
    assert found == {"x/a.jpg": 10, "y/a.jpg": 20}


def test_a_class_that_only_train_has_is_in_both_and_one_that_only_val_has_is_refused(tmp_path):
    write_pair(tmp_path / "train", "a", an_object(), an_object("dog"))
    write_pair(tmp_path / "val", "b", an_object())
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [coco["categories"] for coco, _ in to_coco(voc_of_root(tmp_path)).values()] == [categories] * 2
    write_pair(tmp_path / "val", "c", an_object("cow"), an_object("dog"))
    assert coco_of(tmp_path)["categories"] == categories
    assert coco_of(tmp_path, "val")["categories"] == [*categories, {"id": 3, "name": "cow"}]
    with pytest.raises(DataError, match=r"\.json: val has 1 of its 3 classes that train lacks: 'cow'"):
        build_voc(tmp_path)
    chosen = build_voc(tmp_path, classes=["dog"])
    assert [record.labels.tolist() for record in chosen.val_records] == [[], [0]]
    assert len(build_voc(tmp_path, ignore_categories=["cow"]).val_records[1].crowd) == 3


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        voc_of_root(tmp_path / "nowhere")
    with pytest.raises(DataError, match="there is no XML in"):
        voc_of_root(tmp_path)
    write_xml(tmp_path / "a.xml", an_object())
    with pytest.raises(DataError, match=r"1 of 1 XML files have no image of their name in .*a.xml"):
        voc_of_root(tmp_path)
    write_picture(tmp_path / "a.jpg")
    write_xml(tmp_path / "a.xml")
    with pytest.raises(DataError, match="no object in any label file"):
        to_coco(voc_of_root(tmp_path))
    write_xml(tmp_path / "a.xml", an_object(corners=(1, 1, "left", 9)))
    with pytest.raises(DataError, match=r"a.xml: object 1 \(cat\): bndbox: <xmax> is 'left', no number"):
        to_coco(voc_of_root(tmp_path))


@pytest.mark.parametrize(("names", "message"), [
    ("\n", r"Main/train.txt names no image"),
    ("a\n" + "x" * 5000, r"Main/train.txt names 1 images without an XML in \S+Annotations: x{400} …"),
])  # fmt: skip
def test_a_list_that_can_not_be_followed_is_named_and_a_long_name_in_it_is_cut(tmp_path, names, message):
    write_pair(tmp_path / "JPEGImages", "a", labels=tmp_path / "Annotations")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(names)
    with pytest.raises(DataError, match=message + "$"):
        voc_of_root(tmp_path)


def test_a_split_without_a_usable_picture_names_some(tmp_path):
    write_pair(tmp_path, "a", size=None)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"the train split in \S+ has no image that can be used: \S+/a.jpg$"):
        to_coco(voc_of_root(tmp_path))


def test_the_data_is_named_in_one_way(tmp_path):
    with pytest.raises(ConfigError, match=r"data.root, or data.train.images and data.train.annotations"):
        find_voc(settings(tmp_path))
    both = {"images": "x", "annotations": "y"}
    with pytest.raises(ConfigError, match="in one way"):
        find_voc(settings(tmp_path, root=str(tmp_path), train=both))
    with pytest.raises(ConfigError, match=r"data.val.images is null"):
        find_voc(settings(tmp_path, train=both, val={"images": None, "annotations": "y"}))


def test_a_state_is_converted_once_and_a_changed_label_anew(tmp_path):
    write_pair(tmp_path / "data", "a")
    chosen = settings(tmp_path, root=str(tmp_path / "data"))
    first, _ = find_voc(chosen)["train"]
    before = first.stat().st_mtime_ns
    assert find_voc(chosen)["train"][0] == first
    assert first.stat().st_mtime_ns == before
    write_xml(tmp_path / "data/a.xml", an_object(corners=(5, 1, 10, 20)))  # as many bytes
    second, folder = find_voc(chosen)["train"]
    assert second != first
    assert read_coco(second, folder).records[0].boxes.tolist() == [[4, 0, 10, 20]]


def test_the_check_finds_a_cut_picture_and_training_goes_on_without_it(tmp_path):
    write_pair(tmp_path / "data", "a")
    write_pair(tmp_path / "data", "b")
    cut = tmp_path / "data/b.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 3 // 4])
    report = check_voc(settings(tmp_path, root=str(tmp_path / "data")), lambda *_: None)
    assert {(finding.kind, finding.file) for _, finding in report.findings()} == {("unreadable image", "b.jpg")}


def test_real_blood_cells_read_from_voc_as_from_coco(tmp_path):
    if not (SHARED_DATA / "bccd").is_dir():
        pytest.skip("no ../shared/data")
    annotations = SHARED_DATA / "bccd/annotations/instances_val.json"
    raw = json.loads(annotations.read_text())
    names = {entry["id"]: entry["name"] for entry in raw["categories"]}
    for image in raw["images"]:
        boxes = [entry for entry in raw["annotations"] if entry["image_id"] == image["id"]]
        objects = [
            an_object(names[entry["category_id"]], (x + 1, y + 1, x + width, y + height))
            for entry in boxes for x, y, width, height in [entry["bbox"]]
        ]  # fmt: skip
        write_xml(tmp_path / f"{Path(image['file_name']).stem}.xml", *objects, size=(image["width"], image["height"]))
    found = voc_of_parts({"train": (SHARED_DATA / "bccd/images", tmp_path)})
    (tmp_path / "voc.json").write_text(json.dumps(to_coco(found)["train"][0]))
    mine, given = (
        read_coco(tmp_path / "voc.json", SHARED_DATA / "bccd/images"),
        read_coco(annotations, SHARED_DATA / "bccd/images"),
    )
    of_given = {record.path: record for record in given.records}
    assert len(mine.records) == len(given.records)
    for record in mine.records:
        other = of_given[record.path]
        assert [mine.class_names[label] for label in record.labels] == [
            given.class_names[label] for label in other.labels
        ]
        assert record.boxes.tolist() == other.boxes.tolist()
