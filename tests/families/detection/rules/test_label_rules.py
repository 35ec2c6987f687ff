"""Each rule for odd values of label files, by itself."""

import unicodedata

import numpy as np
import pytest
from pycocotools import mask as reference

from winnow.data.picture_facts import PictureFacts
from winnow.families.detection.rules.box_formats import corners_of, misfit, numbers_of, same_boxes
from winnow.families.detection.rules.file_names import find_names
from winnow.families.detection.rules.label_rules import COCO_BOXES, Convention, LabelSettings
from winnow.families.detection.rules.masks import box_of_mask, lacks_box
from winnow.families.detection.rules.sizes import size_of
from winnow.families.detection.rules.text_numbers import is_no_number, real_of, rows_by_number, whole_of

ANY = LabelSettings()
FORMATS = ["xywh", "xyxy", "cxcywh"]
UNITS = ["pixels", "fraction"]


@pytest.mark.parametrize(("text", "number"), [
    ("0", 0), (" 7 ", 7), ("-3", -3), ("3.0", 3), ("1e2", 100), ("12345678901234567891", 12345678901234567891),
    ("3.5", None), ("", None), ("one", None), ("1_000", None), ("0x10", None), ("nan", None), ("inf", None), ("1,5", None),
    (True, None), (None, None), ([1], None), (4, 4), (4.0, 4), (float("inf"), None),
])  # fmt: skip
def test_a_text_that_is_a_whole_number_is_that_number(text, number):
    assert whole_of(text, reads_text=True) == number
    assert whole_of(text, reads_text=False) == (None if isinstance(text, str) else number)


def test_reals_of_text_are_read_only_where_asked_for():
    assert real_of("2.5", reads_text=True) == 2.5
    assert np.isnan(real_of("2.5", reads_text=False))
    assert np.isnan(real_of("2,5", reads_text=True))


@pytest.mark.parametrize(("value", "is_none"), [
    (None, False), (0, False), (True, False), ("1", False), ("0.5", False), ("no", True), ("", True), ("false", True), ([], True),
])  # fmt: skip
def test_what_is_no_number_is_told_from_what_is_not_there(value, is_none):
    assert is_no_number(value) == is_none


def test_ids_meet_as_numbers_only_where_they_do_not_as_they_stand():
    rows = {7: 0, "007": 1, "8": 2, "a": 3}
    found = rows_by_number(rows, ["8", 8, "9", "a", 7])
    assert (found[8], found["8"], found[7]) == (2, 2, 0)
    assert "9" not in found
    assert "7" not in rows_by_number(rows, ["7"])  # 7 and "007" are both that number


def boxes_in(count, size=(200, 100), seed=0):
    """Return corners (N, 4) of boxes anywhere in images of ``size``, and the sizes."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.1, 0.5, (count, 2))
    first = rng.uniform(0, 1, (count, 2)) * (1 - sides)
    corners = np.concatenate([first, first + sides], axis=1) * np.tile(size, 2)
    return corners, np.tile(np.array(size, float), (count, 1))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("unit", UNITS)
def test_numbers_of_every_convention_lead_to_the_same_corners(form, unit):
    corners, sizes = boxes_in(30)
    convention = Convention(form, unit)
    numbers = numbers_of(corners, convention, sizes)
    assert np.allclose(corners_of(numbers, convention, sizes), corners)


def test_a_box_of_each_convention_by_hand():
    sizes = np.array([[200.0, 100.0]])
    assert corners_of(np.array([[10.0, 20, 30, 40]]), Convention("xywh", "pixels"), sizes).tolist() == [
        [10, 20, 40, 60]
    ]
    assert corners_of(np.array([[10.0, 20, 30, 40]]), Convention("xyxy", "pixels"), sizes).tolist() == [
        [10, 20, 30, 40]
    ]
    assert corners_of(np.array([[0.5, 0.5, 0.5, 1]]), Convention("cxcywh", "fraction"), sizes).tolist() == [
        [50, 0, 150, 100]
    ]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("unit", UNITS)
def test_boxes_of_another_convention_are_told_with_the_override_to_give(form, unit):
    corners, sizes = boxes_in(200)
    numbers = numbers_of(corners, Convention(form, unit), sizes)
    words = misfit(numbers, sizes, COCO_BOXES, ANY)
    if (form, unit) == COCO_BOXES:
        assert words is None
    else:
        assert ("data.box_unit=fraction" in words) == (unit == "fraction")
        assert (f"data.box_format={form}" in words) == (form != "xywh")
        assert misfit(numbers, sizes, Convention(form, unit), ANY) is None


def test_too_few_boxes_tell_nothing():
    corners, sizes = boxes_in(20)
    assert misfit(corners, sizes, COCO_BOXES, ANY) is not None
    assert misfit(corners[:19], sizes[:19], COCO_BOXES, ANY) is None


def test_boxes_that_fit_both_or_neither_are_left_alone():
    small = np.tile([[90.0, 40, 9, 9]], (50, 1))  # inside as corner and size, and as centre and size
    sizes = np.tile([[200.0, 100.0]], (50, 1))
    assert misfit(small, sizes, COCO_BOXES, ANY) is None
    assert misfit(small + 500, sizes, COCO_BOXES, ANY) is None


def test_one_misfit_in_ten_is_not_enough_and_a_little_more_is():
    corners, sizes = boxes_in(200)
    xywh = numbers_of(corners, COCO_BOXES, sizes)
    mixed = np.concatenate([corners[:19], np.tile([[5.0, 5, 20, 20]], (181, 1))])  # the latter fit as both
    assert misfit(mixed, sizes, COCO_BOXES, ANY) is None
    mixed = np.concatenate([corners[:30], np.tile([[5.0, 5, 20, 20]], (170, 1))])
    assert "data.box_format=xyxy" in misfit(mixed, sizes, COCO_BOXES, ANY)
    assert misfit(xywh, sizes, COCO_BOXES, ANY) is None


def test_a_convention_that_is_given_is_not_doubted():
    corners, sizes = boxes_in(200)
    assert misfit(corners, sizes, COCO_BOXES, LabelSettings(box_format="xywh")) is None
    assert misfit(corners, sizes, COCO_BOXES, LabelSettings(box_unit="pixels")) is not None
    fractions = numbers_of(corners, Convention("xyxy", "fraction"), sizes)
    assert misfit(fractions, sizes, COCO_BOXES, LabelSettings(box_unit="pixels")) is None


def test_the_same_box_is_found_by_image_class_and_place():
    images, labels = np.array([0, 0, 0, 1, 0]), np.array([1, 1, 2, 1, 1])
    boxes = np.array([[1, 2, 3, 4]] * 4 + [[1, 2, 3, 5]], np.float32)
    assert same_boxes(images, labels, boxes, np.arange(5)).tolist() == [1]
    assert same_boxes(images, labels, boxes, np.array([1, 2])).tolist() == []


@pytest.mark.parametrize("mask", [
    [[10, 20, 40, 20, 40, 60, 10, 60]],
    [10, 20, 40, 20, 40, 60, 10, 60],
    [["10", "20", "40", "20", "40", "60"], [10, 60, 11, 59, 12, 60]],
])  # fmt: skip
def test_the_box_of_polygons_is_what_they_reach(mask):
    assert box_of_mask(mask) == (10, 20, 40, 60)


@pytest.mark.parametrize("seed", range(6))
def test_the_box_of_runs_is_that_of_the_pixels(seed):
    rng = np.random.default_rng(seed)
    pixels = np.zeros((37, 53), np.uint8, order="F")
    top, left = rng.integers(0, 20, 2)
    pixels[top : top + 9, left : left + 1 + 5 * seed] = 1
    packed = reference.encode(pixels)
    x, y, width, height = reference.toBbox(packed)
    expected = (x, y, x + width, y + height)
    assert box_of_mask({"size": [37, 53], "counts": packed["counts"].decode()}) == expected
    flat = pixels.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    assert box_of_mask({"size": [37, 53], "counts": runs}) == expected


@pytest.mark.parametrize(
    "mask", [None, [], "x", {}, {"size": [0, 1], "counts": []}, [[1, 2]], [[1, 2, 3, 4, 5]], [1, "a"] * 4]
)
def test_what_is_no_mask_has_no_box(mask):
    assert box_of_mask(mask) is None


def test_only_a_box_that_says_nothing_is_missing():
    assert all(map(lacks_box, [None, [], [0, 0, 0, 0], [0.0, "0", 0, 0]]))
    assert not any(map(lacks_box, [[0, 0, 0, 5], [1, 2, 3], "none", 0]))


TURNED = PictureFacts(640, 480, 6)


@pytest.mark.parametrize(("annotated", "picture", "exif", "size"), [
    ((640, 480), PictureFacts(640, 480), "auto", (640, 480)),
    ((480, 640), PictureFacts(640, 480), "auto", (640, 480)),
    ((0, 0), PictureFacts(640, 480), "auto", (640, 480)),
    ((100, 50), PictureFacts(640, 480), "auto", (100, 50)),
    ((480, 640), PictureFacts(640, 480, 3), "auto", (640, 480)),
    ((640, 480), TURNED, "auto", (640, 480)),
    ((480, 640), TURNED, "auto", (480, 640)),
    ((0, 0), TURNED, "auto", (480, 640)),
    ((640, 480), TURNED, "always", (480, 640)),
    ((480, 640), TURNED, "never", (640, 480)),
    ((0, 0), TURNED, "never", (640, 480)),
    ((0, 0), PictureFacts(0, 0), "auto", (0, 0)),
])  # fmt: skip
def test_sizes_come_from_the_picture_where_the_file_has_none_or_exchanged_them(annotated, picture, exif, size):
    assert size_of(annotated, picture, exif) == size


COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "Zähler.jpg"), unicodedata.normalize("NFD", "Zähler.jpg")


@pytest.mark.parametrize(("name", "file"), [
    ("sub\\a.jpg", "sub/a.jpg"),
    ("images/a.jpg", "a.jpg"),
    ("./sub//a.jpg", "sub/a.jpg"),
    ("A.JPG", "a.jpg"),
    ("a.png", "a.jpg"),
    ("a", "a.jpg"),
    ("my%20cat.jpg", "my cat.jpg"),
    (COMPOSED, DECOMPOSED),
    (DECOMPOSED, COMPOSED),
    ("/home/anna/set/images/a.jpg", "a.jpg"),
    ("C:\\Users\\anna\\images\\sub\\a.jpg", "sub/a.jpg"),
    ("a.jpg", "deep/below/a.jpg"),
    ("/home/anna/photos/a.jpg", "other/a.jpg"),
    ("https://host.example/bucket/a%20b.jpg?sign=1", "a b.jpg"),
    ("Sub\\Z%C3%84HLER.JPEG", f"sub/{DECOMPOSED}"),
])  # fmt: skip
def test_the_one_file_that_fits_is_found(tmp_path, name, file):
    folder = tmp_path / "images"
    for one in (file, "none.jpg", "a.txt"):
        (folder / one).parent.mkdir(parents=True, exist_ok=True)
        (folder / one).touch()
    assert find_names([name], folder).taken == {name: file}


@pytest.mark.parametrize(("names", "files", "lost"), [
    (["A.jpg"], ["a.JPG", "a.Jpg"], {"A.jpg": {"a.JPG", "a.Jpg"}}),
    (["a.bmp"], ["a.jpg", "a.png"], {"a.bmp": {"a.jpg", "a.png"}}),
    (["a.jpg"], ["one/a.jpg", "two/a.jpg"], {"a.jpg": {"one/a.jpg", "two/a.jpg"}}),
    (["train/a.jpg", "val/a.jpg"], ["a.jpg"], {"train/a.jpg": {"a.jpg"}, "val/a.jpg": {"a.jpg"}}),
    (["train/a.jpg"], ["val/a.jpg"], {"train/a.jpg": set()}),
    (["a.jpg"], ["val/a.jpg"], {"a.jpg": set()}),
    (["b.jpg"], ["a.jpg"], {"b.jpg": set()}),
])  # fmt: skip
def test_where_none_or_several_fit_nothing_is_taken(tmp_path, names, files, lost):
    for file in files:
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / file).touch()
    found = find_names(names, tmp_path / "images")
    assert found.taken == {}
    assert {name: set(fits) for name, fits in found.lost.items()} == lost


def test_pictures_of_another_split_are_not_taken(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val/a.jpg").touch()
    assert find_names(["train/a.jpg"], tmp_path / "val").taken == {}
    assert find_names(["val/a.jpg"], tmp_path / "val").taken == {"val/a.jpg": "a.jpg"}


def test_a_file_that_another_name_means_is_not_taken(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert find_names(["A.jpg"], tmp_path, used=["a.jpg"]).taken == {}
