"""Reading COCO files: what is kept, mended and refused."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from winnow.data.loader import is_gone
from winnow.errors import DataError
from winnow.families.detection.formats.coco import find_missing_files, read_coco

CATEGORIES = [{"id": 90, "name": "zebra"}, {"id": 1, "name": "ant"}, {"id": 5, "name": "cat"}]


def image(number=1, name="a.jpg", width=100, height=50, **more):
    return {"id": number, "file_name": name, "width": width, "height": height, **more}


def annotation(number=1, bbox=(10, 10, 20, 20), **more):
    fields = {"id": number, "image_id": 1, "category_id": 5, "bbox": list(bbox), "area": 400, "iscrowd": 0}
    return fields | more


def write_coco(folder, images=None, annotations=(), categories=CATEGORIES):
    """Write a COCO file whose images exist, for the reader asks only whether they do."""
    images = [image()] if images is None else images
    for entry in images:
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            path = folder / "images" / entry["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    path = folder / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": categories}))
    return path, folder / "images"


def read(folder, *annotations, **more):
    return read_coco(*write_coco(folder, annotations=annotations, **more))


def test_labels_count_from_zero_in_the_order_of_category_ids_with_gaps(tmp_path):
    split = read(tmp_path, annotation(1, category_id=90), annotation(2, category_id=1), annotation(3, category_id=5))
    assert split.category_ids == (1, 5, 90)
    assert split.class_names == ("ant", "cat", "zebra")
    assert split.records[0].labels.tolist() == [2, 0, 1]


def test_records_keep_the_order_of_images_and_gather_their_own_annotations(tmp_path):
    images = [image(7, "b.jpg"), image("three", "sub/a.jpg"), image(5, "c.jpg")]
    annotations = [annotation(1, image_id=5), annotation(2, image_id=7), annotation(3, (1, 2, 3, 4), image_id=5)]
    split = read(tmp_path, *annotations, images=images)
    assert [record.image_id for record in split.records] == [7, "three", 5]
    assert [len(record.boxes) for record in split.records] == [1, 0, 2]
    assert split.records[2].boxes.tolist() == [[10, 10, 30, 30], [1, 2, 4, 6]]
    assert split.records[1].path == tmp_path / "images" / "sub" / "a.jpg"


def test_boxes_are_xyxy_float32_and_labels_int64(tmp_path):
    record = read(tmp_path, annotation()).records[0]
    assert record.boxes.dtype == np.float32
    assert record.labels.dtype == np.int64
    assert record.crowd.dtype == bool
    assert record.boxes.shape == (1, 4)


def test_an_image_without_annotations_has_empty_arrays_of_the_right_shape(tmp_path):
    record = read(tmp_path).records[0]
    assert record.boxes.shape == (0, 4)
    assert record.labels.shape == record.areas.shape == record.crowd.shape == (0,)


@pytest.mark.parametrize(
    ("bbox", "kind", "kept"),
    [
        ((-5, 10, 20, 20), "box partly outside the image", [[0, 10, 15, 30]]),
        ((90, 40, 30, 30), "box partly outside the image", [[90, 40, 100, 50]]),
        ((10, 10, 0, 5), "box without area", []),
        ((10, 10, 5, -3), "box without area", []),
        ((100, 10, 5, 5), "box wholly outside the image", []),
        ((-9, 10, 9, 5), "box wholly outside the image", []),
        ((99, 10, 1e-9, 5), "box without area", []),
    ],
)
def test_harmless_boxes_are_clipped_by_corners_or_dropped_and_counted(tmp_path, bbox, kind, kept):
    split = read(tmp_path, annotation(1, bbox), annotation(2))
    assert split.repairs == {kind: 1}
    assert split.records[0].boxes[:-1].tolist() == kept


def test_rounding_at_the_edge_is_clipped_but_not_counted(tmp_path):
    split = read(tmp_path, annotation(1, (90.005, 10, 10.005, 10)))
    assert split.repairs == {}
    assert split.records[0].boxes[0, 2] == 100


def test_missing_area_and_iscrowd_are_filled_from_the_clipped_box(tmp_path):
    bare = {key: value for key, value in annotation(0, (90, 40, 30, 30)).items() if key not in ("area", "iscrowd")}
    split = read(tmp_path, bare)
    assert split.repairs == {"box partly outside the image": 1, "area missing": 1, "iscrowd missing": 1}
    assert split.records[0].areas.tolist() == [100]
    assert not split.records[0].crowd[0]


def test_the_own_area_of_an_annotation_is_kept(tmp_path):
    assert read(tmp_path, annotation(area=123.5)).records[0].areas.tolist() == [123.5]


def test_crowds_stay_in_the_record(tmp_path):
    split = read(tmp_path, annotation(1, iscrowd=1), annotation(2))
    assert split.records[0].crowd.tolist() == [True, False]
    assert split.repairs == {}


@pytest.mark.parametrize(
    ("second", "num_boxes", "repairs"),
    [
        (annotation(1), 1, {"repeated annotation": 1}),
        (annotation(1, (0, 0, 5, 5)), 2, {}),
        (annotation(2, image_id=99), 1, {"annotation without image": 1}),
        ("not an object", 1, {"annotation without image": 1}),
    ],
)
def test_doubled_and_orphaned_annotations(tmp_path, second, num_boxes, repairs):
    split = read(tmp_path, annotation(1), second)
    assert len(split.records[0].boxes) == num_boxes
    assert split.repairs == repairs


def test_annotation_id_zero_and_missing_ids_are_read(tmp_path):
    nameless = annotation(0)
    del nameless["id"]
    assert len(read(tmp_path, annotation(0), nameless, nameless).records[0].boxes) == 3


def test_a_repeated_image_entry_is_read_once(tmp_path):
    split = read(tmp_path, annotation(), images=[image(), image()])
    assert len(split.records) == 1
    assert split.repairs == {"repeated image entry": 1}


def test_equal_category_names_are_told_apart(tmp_path):
    split = read(tmp_path, categories=[{"id": 0, "name": "fire"}, {"id": 1, "name": "fire"}])
    assert split.class_names == ("fire", "fire#1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"annotations": [annotation(7, category_id=3)]},
            r"unknown category \(1\): annotation 7 of a.jpg: category_id 3",
        ),
        ({"annotations": [annotation(7, (1, 2, 3))]}, r"malformed box \(1\): annotation 7 of a.jpg: bbox \[1, 2, 3\]"),
        ({"annotations": [annotation(7, (1, 2, 3, math.nan))]}, "malformed box"),
        ({"annotations": [annotation(7, (1, 2, 3, math.inf)), annotation(8)]}, "malformed box"),
        ({"annotations": [annotation(7, (1, 2, 3, None))]}, "malformed box"),
        ({"annotations": [annotation(7, (1, 2, 3, 10**400))]}, "malformed box"),
        ({"annotations": [annotation(7) | {"bbox": None}, annotation(8)]}, "malformed box .1.: annotation 7"),
        ({"images": [image(), image(1, "b.jpg")]}, r"duplicate image id \(1\): image 1 \(b.jpg\)"),
        ({"images": [image(width=None)]}, "malformed image .1.: image 1 .a.jpg.: file_name 'a.jpg', width None"),
        ({"images": [image(height=0)]}, "malformed image"),
        ({"images": [image(None)]}, "malformed image"),
        ({"images": ["a.jpg"]}, "malformed image"),
        ({"categories": [{"id": "one", "name": "ant"}]}, "malformed category"),
        ({"categories": [*CATEGORIES, {"id": 5, "name": "dog"}]}, "duplicate category id"),
        ({"images": []}, "lists no images"),
        ({"categories": []}, "lists no categories"),
        ({"annotations": [annotation(1, image_id="1")]}, "none of the 1 annotations .* annotation without image"),
    ],
)
def test_what_would_corrupt_training_is_refused_by_file_and_id(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read_coco(*write_coco(tmp_path, **changes))


def test_of_many_faults_the_first_are_named_and_the_rest_counted(tmp_path):
    annotations = [annotation(number, category_id=3) for number in range(12)]
    with pytest.raises(DataError, match=r"unknown category \(12\).* annotation 4 .* and 7 more"):
        read(tmp_path, *annotations)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"images": []}', '{"images": {}, "annotations": [], "categories": []}']
)
def test_a_file_that_is_no_coco_is_refused(tmp_path, content):
    path = tmp_path / "coco.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"coco\.json(: not JSON| is no COCO)"):
        read_coco(path, tmp_path)


def test_missing_image_files_are_listed(tmp_path):
    annotations, folder = write_coco(tmp_path, [image(n, f"{n}.jpg") for n in range(9)])
    for number in range(7):
        (folder / f"{number}.jpg").unlink()
    with pytest.raises(DataError, match=r"7 of 9 images .*0\.jpg.*4\.jpg and 2 more"):
        read_coco(annotations, folder)


def test_a_folder_named_like_an_image_counts_as_missing(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    paths = [str(tmp_path / "a.jpg"), str(tmp_path / "none" / "b.jpg")]
    assert find_missing_files(paths) == paths


@pytest.mark.parametrize("folder", ["a\0b", "\ud800", "x" * 300])
def test_a_folder_that_can_not_be_is_not_there(folder, tmp_path):
    paths = [str(tmp_path / folder / "a.jpg")]
    assert find_missing_files(paths) == paths
    assert is_gone(tmp_path / folder)


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    same = [read(tmp_path / place, annotation()).fingerprint for place in ("one", "two")]
    other = read(tmp_path / "two", annotation(2)).fingerprint
    assert same[0] == same[1] != other


def test_a_split_can_go_to_a_worker_process(tmp_path):
    split = pickle.loads(pickle.dumps(read(tmp_path, annotation())))
    assert split.records[0].boxes.tolist() == [[10, 10, 30, 30]]


NUMBERS = st.one_of(
    st.floats(-1e4, 1e4, width=32), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**30), 10**30)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(boxes=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5), area=NUMBERS)
def test_whatever_the_numbers_kept_boxes_lie_inside_and_have_area(tmp_path, boxes, area):
    annotations = [annotation(number, box, area=area) for number, box in enumerate(boxes)]
    record = read(tmp_path, *annotations, annotation(99)).records[0]
    left, top, right, bottom = record.boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= 100).all()
    assert (bottom <= 50).all()
    assert (right > left).all()
    assert (bottom > top).all()
    assert np.isfinite(record.areas).all()


def test_real_annotations_read_clean_and_agree_with_the_file(shared_data):
    folder = shared_data / "bccd"
    path = folder / "annotations" / "instances_val.json"
    split = read_coco(path, folder / "images")
    truth = json.loads(path.read_text())
    assert len(split.records) == len(truth["images"])
    assert sum(len(record.boxes) for record in split.records) == len(truth["annotations"])
    assert split.class_names == ("RBC", "WBC", "Platelets")
    assert isinstance(split.records[0].path, Path)
