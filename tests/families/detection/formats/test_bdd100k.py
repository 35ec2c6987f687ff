"""BDD100K: every generation of its labels becomes the same COCO, once for each state of the source."""

import json

import pytest
from PIL import Image

from winnow.errors import DataError
from winnow.families.detection.formats import bdd100k
from winnow.families.detection.formats.bdd100k import CLASS_NAMES, convert_bdd100k, find_bdd100k, find_sources, to_coco
from winnow.families.detection.formats.coco import read_coco

BOX = {"x1": 10.5, "y1": 20.0, "x2": 40.5, "y2": 60.0}
LANE = {"category": "lane", "id": 3, "poly2d": [{"vertices": [[0, 0], [5, 5]]}]}


def label(category="car", number=0, **more):
    return {"category": category, "id": number, "box2d": BOX} | more


def frame(name="a.jpg", labels=(), **more):
    return {"name": name, "attributes": {"weather": "clear"}, "labels": list(labels)} | more


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_images(root, split="train", names=("a.jpg",)):
    folder = root / "images" / "100k" / split
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (128, 72)).save(folder / name)


def write_2020(root, frames, split="train"):
    write_json(root / f"labels/det_20/det_{split}.json", frames)


def write_2018(root, frames, split="train"):
    write_json(root / f"labels/bdd100k_labels_images_{split}.json", frames)


def write_oldest(root, frames, split="train"):
    for entry in frames:
        stem = entry["name"].removesuffix(".jpg")
        content = {"name": stem, "attributes": {}, "frames": [{"timestamp": 10000, "objects": entry["labels"]}]}
        write_json(root / f"labels/100k/{split}/{stem}.json", content)


def convert(root):
    return to_coco(find_sources(root)["train"])


@pytest.mark.parametrize("write", [write_2020, write_2018, write_oldest])
def test_every_generation_gives_the_same_boxes(tmp_path, write):
    write_images(tmp_path)
    write(tmp_path, [frame(labels=[label("car", 7), LANE])])
    coco, counts = convert(tmp_path)
    (annotation,) = coco["annotations"]
    assert annotation["bbox"] == [10.5, 20.0, 30.0, 40.0]
    assert annotation["area"] == 1200
    assert annotation["category_id"] == 3
    assert coco["images"][0] | {"attributes": None} == {
        "id": 1, "file_name": "a.jpg", "width": 128, "height": 72, "attributes": None,
    }  # fmt: skip
    assert counts == {"labels without box": 1, "images": 1, "boxes": 1}


def test_categories_have_the_official_order_from_1(tmp_path):
    write_images(tmp_path)
    write_2020(tmp_path, [frame()])
    coco, _ = convert(tmp_path)
    assert [category["id"] for category in coco["categories"]] == list(range(1, 11))
    assert [category["name"] for category in coco["categories"]] == list(CLASS_NAMES)
    assert CLASS_NAMES[0] == "pedestrian"
    assert CLASS_NAMES[9] == "traffic sign"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("person", "pedestrian"),
        ("other person", "pedestrian"),
        ("bike", "bicycle"),
        ("motor", "motorcycle"),
        ("other vehicle", "car"),
        ("caravan", "car"),
        ("van", "car"),
        ("trailer", "truck"),
    ],
)
def test_old_category_names_become_the_new_ones(tmp_path, old, new):
    write_images(tmp_path)
    write_2018(tmp_path, [frame(labels=[label(old)])])
    coco, _ = convert(tmp_path)
    assert CLASS_NAMES[coco["annotations"][0]["category_id"] - 1] == new


@pytest.mark.parametrize("labels", [None, []])
def test_a_frame_without_labels_is_an_image_without_objects(tmp_path, labels):
    write_images(tmp_path)
    write_2020(tmp_path, [{"name": "a.jpg", "labels": labels}])
    coco, counts = convert(tmp_path)
    assert (len(coco["images"]), coco["annotations"], counts["images"]) == (1, [], 1)


def test_a_frame_that_lacks_the_key_labels_is_an_image_without_objects(tmp_path):
    write_images(tmp_path)
    write_2020(tmp_path, [{"name": "a.jpg"}])
    assert len(convert(tmp_path)[0]["images"]) == 1


def test_the_newest_label_file_wins_and_older_ones_fill_in(tmp_path):
    write_images(tmp_path, names=("a.jpg", "b.jpg"))
    write_2018(tmp_path, [frame("a.jpg", [label("car")] * 3), frame("b.jpg", [label("bus")])])
    write_2020(tmp_path, [frame("a.jpg", [label("truck", "0")])])
    coco, _ = convert(tmp_path)
    assert [(entry["image_id"], entry["category_id"]) for entry in coco["annotations"]] == [(1, 4), (2, 5)]


def test_a_partial_download_is_counted_and_goes_on(tmp_path):
    write_images(tmp_path, names=("a.jpg", "unlabelled.jpg"))
    (tmp_path / "images/100k/train/broken.jpg").write_bytes(b"")
    write_2020(tmp_path, [frame("a.jpg", [label()]), frame("absent.jpg", [label()]), frame("broken.jpg")])
    coco, counts = convert(tmp_path)
    assert [entry["file_name"] for entry in coco["images"]] == ["a.jpg"]
    assert counts["labelled images not on disk"] == 1
    assert counts["labelled images unreadable"] == 1
    assert counts["images without labels"] == 1


def test_nothing_left_is_an_error(tmp_path):
    write_images(tmp_path, names=("other.jpg",))
    write_2020(tmp_path, [frame("a.jpg", [label()])])
    with pytest.raises(DataError, match="none of the 1 frames"):
        convert(tmp_path)


def test_unknown_categories_are_counted_by_name_and_crowds_marked(tmp_path):
    write_images(tmp_path)
    write_2020(tmp_path, [frame(labels=[label("ufo"), label(attributes={"crowd": True})])])
    coco, counts = convert(tmp_path)
    assert [entry["iscrowd"] for entry in coco["annotations"]] == [1]
    assert counts["boxes of unknown category 'ufo'"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([frame(labels=[label(number=8, box2d={"x1": 1})])], "label 8 of frame a.jpg has a malformed box2d"),
        ([frame(labels=["car"])], "frame a.jpg has a malformed label"),
        ([{"labels": []}], "has a frame without name"),
        ([frame(), frame(labels=[label()])], "labels frame a.jpg twice"),
        ({"images": []}, "neither a list of frames"),
    ],
)
def test_malformed_labels_are_named(tmp_path, content, message):
    write_images(tmp_path)
    write_2020(tmp_path, content)
    with pytest.raises(DataError, match=message):
        convert(tmp_path)


@pytest.fixture
def source(tmp_path):
    """Return a small BDD100K folder with both splits, labelled by different generations."""
    root = tmp_path / "source"
    for split, write in (("train", write_2020), ("val", write_2018)):
        write_images(root, split)
        write(root, [frame(labels=[label()])], split)
    return root


def test_a_conversion_is_reused_until_labels_or_images_change(source, tmp_path, monkeypatch):
    first = find_bdd100k(source, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(bdd100k, "to_coco", None)
        assert find_bdd100k(source, tmp_path / "cache") == first
    write_images(source, "train", ["b.jpg"])
    more_images = find_bdd100k(source, tmp_path / "cache")
    write_2018(source, [frame(labels=[label("bus", 12345)])], "val")
    more_labels = find_bdd100k(source, tmp_path / "cache")
    assert first["train"] != more_images["train"] == more_labels["train"]
    assert first["val"] == more_images["val"] != more_labels["val"]


def test_another_converter_version_converts_anew(source, tmp_path, monkeypatch):
    first = find_bdd100k(source, tmp_path / "cache")
    monkeypatch.setattr(bdd100k, "CONVERTER_VERSION", bdd100k.CONVERTER_VERSION + 1)
    assert find_bdd100k(source, tmp_path / "cache")["train"] != first["train"]


def test_conversions_of_equal_sources_are_equal_bytes(source, tmp_path):
    first, again = (find_bdd100k(source, tmp_path / cache)["train"][0] for cache in ("one", "two"))
    assert first.read_bytes() == again.read_bytes()


def test_a_failed_conversion_leaves_nothing_behind(source, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(bdd100k.os, "replace", fail)
    with pytest.raises(DataError, match="cannot write .* no space left"):
        find_bdd100k(source, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_conversion_by_hand_is_found_as_converted_form(source, tmp_path):
    convert_bdd100k(source, tmp_path / "target")
    found = find_bdd100k(tmp_path / "target", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert len(read_coco(*found["train"]).records) == 1
    assert convert_bdd100k(source, tmp_path / "target")["val"]["boxes"] == 1


def test_a_conversion_never_replaces_other_images(source, tmp_path):
    (tmp_path / "target/images/train").mkdir(parents=True)
    with pytest.raises(DataError, match="choose another folder"):
        convert_bdd100k(source, tmp_path / "target")


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_split_names_what_was_looked_for(source, tmp_path, missing):
    for path in source.glob(f"labels/**/*{missing}.json"):
        path.unlink()
    with pytest.raises(DataError, match=f"no BDD100K {missing} split.*det_20/det_{missing}.json"):
        find_bdd100k(source, tmp_path / "cache")


@pytest.mark.parametrize("folder", ["bdd100k_mini", "bdd100k_mini/bdd100k"])
def test_the_real_files_agree_with_their_coco_export(shared_data, tmp_path, folder):
    found = find_bdd100k(shared_data / folder, tmp_path)
    for split, (annotations, images) in found.items():
        ours = read_coco(annotations, images)
        export = read_coco(
            shared_data / f"bdd100k_mini/annotations/instances_{split}.json", shared_data / "bdd100k_mini"
        )
        assert ours.category_ids == export.category_ids
        assert ours.repairs == {}
        for mine, other in zip(ours.records, export.records, strict=True):
            assert mine.path.name == other.path.name
            assert (mine.width, mine.height) == (1280, 720)
            assert mine.labels.tolist() == other.labels.tolist()
            assert abs(mine.boxes - other.boxes).max() < 0.003


def test_the_real_tracking_labels_keep_crowds_and_string_ids(shared_data, tmp_path):
    labels = shared_data / "bdd100k_mini/scalabel_testcases/track_sample_anns.json"
    frames = json.loads(labels.read_text())
    write_images(tmp_path, names=[entry["name"] for entry in frames])
    write_2020(tmp_path, frames)
    coco, counts = convert(tmp_path)
    assert counts == {"images": 202, "boxes": 3241}
    crowds = [entry["attributes"]["crowd"] for one in frames for entry in one["labels"]]
    assert sum(entry["iscrowd"] for entry in coco["annotations"]) == sum(crowds)
