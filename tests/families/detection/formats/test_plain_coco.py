"""What is decoded straight into columns is what looking at each entry gives, to the last bit, refusals and all."""

import numpy as np
import pytest
from PIL import Image
from test_coco import CATEGORIES, annotation, image, write_coco
from test_record_cache import assert_same

from winnow.errors import DataError
from winnow.families.detection.formats import coco_table
from winnow.families.detection.formats.coco import read_coco
from winnow.families.detection.formats.plain_coco import plain_coco
from winnow.families.detection.rules.label_rules import LabelSettings, Reading


def outcome(path, images, **labels):
    try:
        return read_coco(path, images, Reading(labels=LabelSettings(**labels)))
    except DataError as error:
        return str(error)


def assert_both_read_the_same(monkeypatch, path, images, **labels):
    found = outcome(path, images, **labels)
    with monkeypatch.context() as patched:
        patched.setattr(coco_table, "plain_coco", lambda content: None)
        expected = outcome(path, images, **labels)
    if isinstance(expected, str):
        assert found == expected
    else:
        assert list(found.repairs) == list(expected.repairs)
        assert_same(found, expected)


def drawn_file(rng, folder):
    """Write a file with what plain files may have wrong: boxes outside, twice or without area, no image, no flag, and with
    pictures that lie otherwise than the file says."""
    images = [image(int(number), f"{number}.png") for number in rng.permutation(40)[:8]]
    for entry in images[:3]:
        entry["width"], entry["height"] = 50, 100
    objects = []
    for number in rng.permutation(500)[:60].tolist():
        box = (rng.uniform(-30, 90, 4) * rng.choice([1, 1, 0, -1], 4)).round(int(rng.integers(0, 3))).tolist()
        more = {"image_id": images[rng.integers(len(images))]["id"], "category_id": CATEGORIES[rng.integers(3)]["id"]}
        more |= {"area": rng.choice([-1.0, 0.0, 7.5, 3e38, 4e38])} if rng.random() < 0.5 else {}
        more |= {"iscrowd": [0, 1, True, False, None, 7][rng.integers(6)]} if rng.random() < 0.7 else {}
        objects.append(annotation(number, box, **more))
    objects += [{**objects[0], "id": 1000}, {**objects[1], "id": 1001, "image_id": 4000}]
    if rng.random() < 0.3:
        objects[2]["category_id"] = 2
    write_coco(folder, images, objects)
    for entry in images:
        Image.new("L", (100, 50)).save(folder / "images" / entry["file_name"])
    return folder / "coco.json"


@pytest.mark.parametrize("seed", range(12))
def test_a_plain_file_is_read_as_entry_by_entry(tmp_path, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    path = drawn_file(rng, tmp_path)
    assert plain_coco(path.read_bytes()) is not None
    assert_both_read_the_same(monkeypatch, path, tmp_path / "images")
    assert_both_read_the_same(monkeypatch, path, tmp_path / "images", drop_duplicates=True, mend=["sizes"])
    assert_both_read_the_same(monkeypatch, path, tmp_path / "images", box_format="xyxy")
