import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from winnow.errors import ConfigError
from winnow.families.detection.formats.digits import DigitsSettings, make_digits
from winnow.settings import build_settings

PLAIN = {"num_train": 30, "num_val": 10, "size": 96, "objects": [1, 5], "object_scale": [0.22, 0.42], "seed": 0}


def settings(**changes):
    return build_settings(DigitsSettings, PLAIN | changes, "data")


def annotations(folder, part="train"):
    return json.loads((folder / "annotations" / f"instances_{part}.json").read_text())


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
    }


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return make_digits(tmp_path_factory.mktemp("digits"), settings())


def test_the_same_settings_draw_the_same_files(digits, tmp_path):
    assert digest(make_digits(tmp_path, settings())) == digest(digits)


def test_another_seed_draws_other_images_beside_them(digits):
    other = make_digits(digits.parent, settings(seed=1))
    assert other != digits
    assert not set(digest(other).values()) & set(digest(digits).values())


def test_a_second_call_draws_nothing(digits):
    before = {path: path.stat().st_mtime_ns for path in digits.rglob("*.jpg")}
    make_digits(digits.parent, settings())
    assert {path: path.stat().st_mtime_ns for path in digits.rglob("*.jpg")} == before


def test_boxes_lie_inside_do_not_overlap_and_have_the_asked_size(digits):
    by_image = {}
    for annotation in annotations(digits)["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert min(x, y) >= 0
        assert max(x + width, y + height) <= 96
        assert 0.21 * 96 <= max(width, height) <= 0.43 * 96
        assert annotation["area"] == width * height
        by_image.setdefault(annotation["image_id"], np.zeros((96, 96), int))[y : y + height, x : x + width] += 1
    assert len(by_image) == 30
    assert all(cover.max() == 1 for cover in by_image.values())


def test_images_are_what_the_annotations_say(digits):
    content = annotations(digits, "val")
    assert [category["name"] for category in content["categories"]] == list("0123456789")
    for entry in content["images"]:
        with Image.open(digits / "val" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"]) == (96, 96)


@pytest.mark.parametrize(("change", "message"), [
    ({"objects": [3, 1]}, r"data: objects=\[3, 1\] must be \[low, high\]"),
    ({"object_scale": [0.2, 1.5]}, r"object_scale=\[0.2, 1.5\]"),
    ({"size": 8}, "data.size=8"),
])  # fmt: skip
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        settings(**change)
