"""Fingerprints that runs recorded before they covered what comes out: the same samples go on, else the key is named."""

import json

import numpy as np
import pytest
from composed import compose_plain
from PIL import Image

from winnow.config.moved import with_added_keys, with_kept_rules
from winnow.data.plan import LoadingSettings
from winnow.families.detection.data import bdd100k_data, coco_data, digits_data, voc_data, yolo_data

BUILDERS = {"bdd100k": bdd100k_data, "coco": coco_data, "digits": digits_data, "voc": voc_data, "yolo": yolo_data}
RECORDED = {
    "bdd100k": "10d77ff6f5d643a9",
    "coco": "b7ce10495bb981da",
    "digits": "5a4399b7cd2a4382",
    "voc": "b31ece5feb30605e",
    "yolo": "ac728629eb354ff5",
}
"""What the reader of before, 18a9d9d, wrote into checkpoints for the sets that ``make`` writes."""


def save(path, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(path, exif=exif)


def write_coco(folder, *annotations, orientation=None, **size):
    save(folder / "images/a.png", orientation)
    save(folder / "images/b.png")
    images = [{"id": 1, "file_name": "a.png", "width": 64, "height": 48} | size]
    images.append({"id": 2, "file_name": "b.png", "width": 64, "height": 48})
    fields = {"image_id": 1, "category_id": 3, "area": 99, "iscrowd": 0}
    entries = [fields | {"id": 1, "bbox": [4, 6, 20, 10]}, fields | {"id": 2, "image_id": 2, "bbox": [1, 2, 70, 9]}]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    content = {"images": images, "annotations": [*entries, *annotations], "categories": categories}
    (folder / "coco.json").write_text(json.dumps(content))


def make(folder, kind):
    """Write a small set of a ``kind`` below ``folder``, and return its node's values."""
    if kind == "coco":
        write_coco(folder)
        paths = {"images": str(folder / "images"), "annotations": str(folder / "coco.json")}
        return {"train": paths, "val": paths}
    if kind == "digits":
        return {"root": str(folder), "num_train": 6, "num_val": 2, "size": 64, "image_size": 64}
    if kind == "voc":
        for name in ("a", "b"):
            save(folder / f"{name}.png")
            (folder / f"{name}.xml").write_text(
                "<annotation><object><name>cat</name><bndbox><xmin>5</xmin><ymin>7</ymin><xmax>24.5</xmax><ymax>16</ymax></bndbox>"
                "</object></annotation>"
            )
        return {"root": str(folder), "val": None}
    if kind == "yolo":
        save(folder / "images/a.png")
        (folder / "labels").mkdir()
        (folder / "labels/a.txt").write_text("0 .3 .3 .1 .2\n1 .1 .1 .3 .1 .3 .3\n")
        (folder / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")
        return {"root": str(folder)}
    for split in ("train", "val"):
        save(folder / f"images/100k/{split}/a.jpg")
        (folder / "labels/det_20").mkdir(parents=True, exist_ok=True)
        label = {"id": "1", "category": "person", "box2d": {"x1": 1.5, "y1": 2, "x2": 30, "y2": 40}}
        (folder / f"labels/det_20/det_{split}.json").write_text(json.dumps([{"name": "a.jpg", "labels": [label]}]))
    return {"root": str(folder)}


def data_of(folder, kind, **values):
    node = compose_plain(f"data={kind}")["data"]
    del node["_target_"]
    if "cache" in node:
        node["cache"] = str(folder / "cache")
    loading = LoadingSettings(
        batch_size=1, num_workers=0, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
    )
    return BUILDERS[kind](loading=loading, **node | values)


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_run_begun_before_goes_on_where_the_set_reads_as_before(tmp_path, kind):
    data = data_of(tmp_path, kind, **make(tmp_path, kind))
    assert data.changes_since(RECORDED[kind]) == []
    assert data.changes_since("0123456789abcdef") is None
    assert data.fingerprint != RECORDED[kind]


def coco_of(folder, *annotations, orientation=None, mend=None, **size):
    """Return the data of a COCO set with what is given, and what its fingerprint was before."""
    write_coco(folder, *annotations, orientation=orientation, **size)
    paths = {"images": str(folder / "images"), "annotations": str(folder / "coco.json")}
    values = {} if mend is None else {"mend": mend}
    return lambda **more: data_of(folder, "coco", train=paths, val=None, **values | more)


def changes(data):
    return data.changes_since(data._old_fingerprint)


FLAG = {"id": 9, "image_id": 2, "category_id": 3, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": "0"}


@pytest.mark.parametrize(("annotation", "is_changed"), [
    (FLAG, True),
    (FLAG | {"iscrowd": "1"}, False),
    (FLAG | {"iscrowd": 0, "area": "600"}, False),
    (FLAG | {"iscrowd": 0, "area": "500"}, True),
    (FLAG | {"iscrowd": 0, "image_id": "2"}, True),
])  # fmt: skip
def test_a_rule_that_changed_a_record_is_named_with_the_key_that_brings_the_old_reading_back(
    tmp_path, annotation, is_changed
):
    make_data = coco_of(tmp_path, annotation)
    found = changes(make_data())
    if is_changed:
        (line,) = found
        assert "numbers that are not as they should be are read" in line
        assert "data.mend=[file_names,sizes,masks,jpeg_ends] reads as before" in line
    else:
        assert found == []
    assert changes(make_data(mend=["file_names", "sizes", "masks", "jpeg_ends"])) == []


def test_exchanged_sizes_and_boxes_left_out_are_named_with_their_keys(tmp_path):
    make_data = coco_of(tmp_path, FLAG | {"iscrowd": 0}, FLAG | {"id": 10, "iscrowd": 0}, width=48, height=64)
    (line,) = changes(make_data())
    assert "data.mend=[numbers,file_names,masks,jpeg_ends]" in line
    lines = changes(make_data(drop_duplicates=True))
    assert any("data.drop_duplicates=false" in line for line in lines)


def test_pictures_that_are_turned_now_are_named_and_a_resumed_run_keeps_its_rule(tmp_path):
    make_data = coco_of(tmp_path, orientation=3)
    (line,) = changes(make_data())
    assert line == "1 images are turned otherwise by their EXIF orientation: data.exif=by_size takes them as before"
    assert changes(make_data(exif="by_size")) == []
    assert make_data(exif="by_size").fingerprint == make_data(exif="never").fingerprint != make_data().fingerprint


def test_rules_that_change_no_pixel_change_no_fingerprint(tmp_path):
    make_data = coco_of(tmp_path)
    own = make_data().fingerprint
    for values in (
        {"exif": "always"},
        {"exif": "never"},
        {"depth": [0, 4095]},
        {"mend": []},
        {"drop_duplicates": True},
        {"box_format": "xywh"},
    ):
        assert make_data(**values).fingerprint == own
    assert coco_of(tmp_path, FLAG | {"iscrowd": 0})().fingerprint != own


def test_a_jpeg_without_its_end_is_named(tmp_path):
    make_data = coco_of(tmp_path)
    path = tmp_path / "images/a.png"
    Image.open(path).save(tmp_path / "a.jpg")
    path.write_bytes((tmp_path / "a.jpg").read_bytes()[:-2])
    (line,) = changes(make_data())
    assert line.startswith("1 JPEGs that lack their end are read: data.mend=[numbers,file_names,sizes,masks]")


def test_a_config_of_before_keeps_the_rule_that_it_began_with():
    node = compose_plain("data=coco")["data"]
    for key in ("exif", "depth", "max_pixels", "mend", "box_format", "box_unit", "drop_duplicates", "cache"):
        del node[key]
    went_on = with_added_keys(with_kept_rules({"data": node}))["data"]
    assert went_on == compose_plain("data=coco")["data"] | {"exif": "by_size"}
    assert with_added_keys({"data": node})["data"] == compose_plain("data=coco")["data"]
