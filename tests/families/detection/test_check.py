"""The data check: every fault is found once, by file and annotation id."""

import json

import numpy as np
import pytest
from PIL import Image

from winnow.errors import DataError
from winnow.families.detection.check import check_split, check_splits, compare_splits
from winnow.families.detection.formats.coco import read_coco


def write_images(folder, *names, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(folder / name)


def write_coco(path, names, annotations=(), categories=("cat",)):
    images = [{"id": n, "file_name": name, "width": 30, "height": 20} for n, name in enumerate(names, start=1)]
    content = {
        "images": images,
        "annotations": list(annotations),
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories, start=1)],
    }
    path.write_text(json.dumps(content))
    return path


def box(number, image_id=1, bbox=(1, 1, 5, 5), category_id=1):
    fields = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox}
    return fields | {"area": 25, "iscrowd": 0}


ONE_BOX = (box(1),)


def check(folder, names=("a.jpg",), annotations=ONE_BOX, damage=None, **more):
    write_images(folder / "images", *names)
    if damage is not None:
        damage(folder / "images")
    return check_split(write_coco(folder / "coco.json", names, annotations, **more), folder / "images")


def found(report):
    return [(finding.kind, finding.file, finding.annotation) for finding in report.findings]


def test_a_sound_data_set_is_clean(tmp_path):
    report = check(tmp_path, ("a.jpg", "b.png"), [box(1), box(2, 2)])
    assert report.is_clean
    assert report.findings == ()
    assert (report.num_images, report.num_annotations) == (2, 2)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (box(2, bbox=(-3, 1, 9, 5)), ("box partly outside the image", "a.jpg", 2)),
        (box(2, bbox=(31, 1, 9, 5)), ("box wholly outside the image", "a.jpg", 2)),
        (box(2, bbox=(3, 1, 0, 5)), ("box without area", "a.jpg", 2)),
        (box(2, bbox="none"), ("malformed box", "a.jpg", 2)),
        (box(2, category_id=8), ("unknown category", "a.jpg", 2)),
        (box(1, bbox=(2, 2, 3, 3)), ("duplicate annotation id", "a.jpg", 1)),
        (box(1), ("repeated annotation", "a.jpg", 1)),
        (box(2, image_id=77), ("annotation without image", "", 2)),
    ],
)
def test_faults_of_annotations_are_found_by_file_and_id(tmp_path, extra, expected):
    report = check(tmp_path, annotations=[box(1), extra])
    assert found(report) == [expected]
    assert not report.is_clean


def truncate(folder):
    path = folder / "b.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def shrink(folder):
    Image.new("RGB", (15, 10)).save(folder / "b.jpg")


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda folder: (folder / "b.jpg").unlink(), "missing image"),
        (lambda folder: (folder / "b.jpg").write_bytes(b""), "unreadable image"),
        (truncate, "unreadable image"),
        (shrink, "size mismatch"),
    ],
)
def test_faults_of_image_files_are_found(tmp_path, damage, kind):
    report = check(tmp_path, ("a.jpg", "b.jpg"), [box(1), box(2, 2)], damage)
    assert found(report) == [(kind, "b.jpg", None)]


def test_an_image_without_annotation_is_told_but_no_problem(tmp_path):
    report = check(tmp_path, ("a.jpg", "b.jpg"))
    assert found(report) == [("image without annotation", "b.jpg", None)]
    assert report.is_clean


def test_the_check_finds_what_training_refuses(tmp_path):
    report = check(tmp_path, annotations=[box(1), box(2, category_id=8)])
    with pytest.raises(DataError, match="unknown category"):
        read_coco(report.annotations, tmp_path / "images")
    assert report.counts == {"unknown category": 1}


def test_progress_counts_every_image_once(tmp_path):
    seen = []
    write_images(tmp_path / "images", "a.jpg", "b.jpg")
    path = write_coco(tmp_path / "coco.json", ("a.jpg", "b.jpg"))
    check_split(path, tmp_path / "images", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_an_image_in_both_splits_is_found_by_content_under_another_name(tmp_path):
    train = check(tmp_path / "train", ("a.jpg", "b.jpg"))
    val = check(
        tmp_path / "val",
        ("x.jpg",),
        damage=lambda folder: (folder / "x.jpg").write_bytes((tmp_path / "train/images/b.jpg").read_bytes()),
    )
    (finding,) = compare_splits(train, val)
    assert (finding.kind, finding.file) == ("same image in train and val", "x.jpg")
    assert "b.jpg" in finding.detail


def test_an_equal_name_with_other_content_is_no_problem(tmp_path):
    train = check(tmp_path / "train")
    val = check(tmp_path / "val", damage=lambda folder: write_images(folder, "a.jpg", seed=1))
    (finding,) = compare_splits(train, val)
    assert (finding.kind, finding.is_problem) == ("same file name in train and val", False)


def test_classes_are_compared_by_name_and_those_without_an_object_are_named(tmp_path):
    write_images(tmp_path / "images", "a.jpg")
    write_images(tmp_path / "images", "b.jpg", seed=1)
    train = write_coco(tmp_path / "train.json", ("a.jpg",), [box(1)], categories=("cat", "cow"))
    val = write_coco(tmp_path / "val.json", ("b.jpg",), [box(1, category_id=2)], categories=("dog", "cat"))
    report = check_splits({"train": (train, tmp_path / "images"), "val": (val, tmp_path / "images")}, lambda *_: None)
    assert report.objects == {"train": {"cat": 1, "cow": 0}, "val": {"cat": 1, "cow": 0}}
    assert [(split, finding.kind, finding.detail, finding.is_problem) for split, finding in report.findings()] == [
        ("train", "class without an object", "'cow' has none in train", False),
        ("val", "class without an object", "'cow' has none in val", False),
        ("both", "class that train lacks", "'dog' is in val alone", True),
    ]


def test_a_real_data_set_decodes_whole_and_clean(shared_data):
    folder = shared_data / "bccd"
    report = check_split(folder / "annotations" / "instances_val.json", folder / "images")
    assert report.is_clean
    assert len(report.hashes) == report.num_images == 73
