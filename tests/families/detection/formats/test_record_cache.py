"""What an annotation file comes to is kept, is the same whether it was parsed or mapped, and is never believed when damaged."""

import json
import logging
import multiprocessing
import pickle
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from annotated_parts import LOADING, coco_values
from PIL import ExifTags
from test_coco import CATEGORIES, annotation, image, write_coco

from winnow.data.plan import LoadingSettings
from winnow.errors import DataError
from winnow.families.detection.data import coco_data
from winnow.families.detection.formats import coco
from winnow.families.detection.formats.coco import read_coco as read_by_rules
from winnow.families.detection.formats.record_cache import MappedRecords
from winnow.families.detection.report import _reader as reader_of_pictures
from winnow.families.detection.rules.label_rules import LabelSettings, Reading

IMAGES = [image(7, "b.jpg"), image("thrée", "süb/\udcffa.jpg"), image(2**70, "c.jpg", width=2**23)]
OBJECTS = [
    annotation(1, image_id=2**70), annotation(2, (-4, 1, 9, 9), image_id=7, iscrowd=1), annotation(3, (1, 2, 3, 4), image_id=7),
    annotation(4, category_id=90, image_id=7, area=12.5),
]  # fmt: skip


def read_coco(path, images, cache=None, **more):
    return read_by_rules(path, images, Reading(cache=cache, **more))


def kept_in(cache):
    return sorted(cache.glob("records_*"))


@pytest.fixture
def files(tmp_path):
    return *write_coco(tmp_path, IMAGES, OBJECTS), tmp_path / "cache"


def assert_same(first, second):
    assert (first.class_names, first.category_ids) == (second.class_names, second.category_ids)
    for name in ("fingerprint", "old_fingerprint", "repairs", "doubts", "annotations", "pictures"):
        mine, others = getattr(first, name), getattr(second, name)
        assert np.array_equal(mine, others) if name == "pictures" else mine == others, name
    assert_same_records(first.records, second.records)


def assert_same_records(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one.image_id, one.path, one.width, one.height) == (
            other.image_id,
            other.path,
            other.width,
            other.height,
        )
        for name in ("boxes", "labels", "areas", "crowd"):
            mine, others = getattr(one, name), getattr(other, name)
            assert (mine.dtype, mine.tolist()) == (others.dtype, others.tolist())


def not_parsed(monkeypatch):
    monkeypatch.setattr(coco, "read_table", lambda *_: pytest.fail("the file was parsed again"))


def test_a_second_start_parses_nothing_and_gives_the_same(files, monkeypatch, caplog):
    parsed = read_coco(*files[:2])
    first = read_coco(*files)
    not_parsed(monkeypatch)
    second = read_coco(*files)
    assert isinstance(second.records, MappedRecords)
    assert_same(parsed, first)
    assert_same(parsed, second)
    assert parsed.repairs == {"box partly outside the image": 1}


def test_doubts_are_logged_at_each_start(tmp_path, caplog):
    paths = write_coco(tmp_path, annotations=[annotation(1, (90, 1, 50, 9)), annotation(2)])
    for _ in range(2):
        caplog.clear()
        read_coco(*paths, tmp_path / "cache")
        assert "1 of 2 boxes do not fit their image" in caplog.text


def test_another_content_is_read_and_another_place_of_the_same_is_not(files, tmp_path, monkeypatch):
    path, images, cache = files
    read_coco(path, images, cache)
    changed = path.read_text().replace('"iscrowd": 1', '"iscrowd": 0')
    path.write_text(changed)
    assert not read_coco(path, images, cache).records[0].crowd.any()
    not_parsed(monkeypatch)
    (tmp_path / "elsewhere.json").write_text(changed)
    assert read_coco(tmp_path / "elsewhere.json", images, cache).records[0].path == images / "b.jpg"


def test_an_image_that_went_missing_is_named(files):
    read_coco(*files)
    (files[1] / "c.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images of .* are not in .*c\.jpg"):
        read_coco(*files)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other"])
def test_a_damaged_file_is_made_anew(files, damage, caplog):
    first = read_coco(*files)
    (kept,) = kept_in(files[2])
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 4
    kept.unlink()  # what is mapped stays: a file that is cut under its mapping kills the process
    kept.write_bytes({"cut": data[:100], "bit": data, "empty": b"", "other": b"x" * 200}[damage])
    caplog.clear()
    assert_same(first, read_coco(*files))
    assert "what was kept of annotations is made anew: " in caplog.text
    caplog.clear()
    read_coco(*files)
    assert "anew" not in caplog.text


def test_a_cache_that_cannot_be_written_costs_time_only(files, tmp_path, caplog):
    (tmp_path / "file").touch()
    assert_same(read_coco(*files[:2]), read_coco(*files[:2], tmp_path / "file" / "cache"))
    assert "annotations are read anew at each start" in caplog.text


def test_refused_files_are_not_kept(tmp_path):
    paths = write_coco(tmp_path, annotations=[annotation(category_id=8)])
    for _ in range(2):
        with pytest.raises(DataError, match="unknown category"):
            read_coco(*paths, tmp_path / "cache")
    assert not kept_in(tmp_path / "cache")


def boxes_in(records):
    return [record.boxes.tolist() for record in records]


def test_a_process_that_is_started_anew_maps_the_file_again(files):
    records = read_coco(*files).records
    assert len(pickle.dumps(records)) < 1000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(boxes_in, (records,)) == boxes_in(records)


def test_a_part_of_the_records_are_those_records(files):
    records = read_coco(*files).records
    assert_same_records(records.take(np.array([2, 0])), [records[2], records[0]])
    assert_same_records(records[1:], [records[1], records[2]])
    assert_same_records(records.take(np.array([], dtype=np.int64)), [])
    assert records[-1].image_id == 2**70
    with pytest.raises(IndexError):
        records[3]


def test_records_belong_to_whoever_asks(files):
    records = read_coco(*files).records
    records[0].boxes[:] = -1
    assert (records[0].boxes >= 0).all()


def test_a_file_without_objects_and_one_without_categories_in_use(tmp_path):
    paths = write_coco(tmp_path, [image(1), image(2, "b.jpg")], categories=CATEGORIES[:1])
    for _ in range(2):
        assert [len(record.boxes) for record in read_coco(*paths, tmp_path / "cache").records] == [0, 0]
    assert json.loads(paths[0].read_text())["annotations"] == []


def odd_set(folder, *changes):
    """Write a set with text for numbers, exchanged and missing sizes, EXIF orientations 6 and 3 and an object over the edge."""
    (folder / "images").mkdir()
    for name, orientation in (("a.jpg", 6), ("b.jpg", 3), ("c.jpg", 1)):
        exif = PIL.Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        PIL.Image.new("RGB", (40, 20), (200, 30, 30)).save(folder / "images" / name, exif=exif)
    images = [
        {"id": "1", "file_name": "a.jpg", "width": 20, "height": "40"},
        {"id": 2, "file_name": "b.jpg"},
        {"id": 3, "file_name": "c.jpg", "width": 20, "height": 40},
    ]
    for row, name in changes:
        images[row]["file_name"] = name
    objects = [
        annotation(1, (1, 2, 10, 30), image_id=1, iscrowd="0"),
        annotation(2, ("3", "4", "10", "10"), image_id=2),
        annotation(3, (30, 4, 20, 10), image_id=3),
    ]
    path = folder / "odd.json"
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": CATEGORIES}))
    return path, folder / "images"


def started(path, images, cache, caplog):
    """Return the data set of a run, and what its log says."""
    caplog.clear()
    caplog.set_level(logging.INFO, logger="winnow")
    values = coco_values(path.parent) | {"train": {"images": str(images), "annotations": str(path)}, "val": None}
    data = coco_data(loading=LoadingSettings(**LOADING), **values | {"cache": cache if cache is None else str(cache)})
    return data, [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("is_named_otherwise", [False, True])
def test_a_set_that_is_mended_is_the_same_at_the_second_start(tmp_path, caplog, monkeypatch, is_named_otherwise):
    files = odd_set(tmp_path, *([(0, "pictures\\A.JPG")] if is_named_otherwise else []))
    cache = tmp_path / "cache"
    without, lines = started(*files, None, caplog)
    first, lines_of_first = started(*files, cache, caplog)
    assert len(kept_in(cache)) == (0 if is_named_otherwise else 1), "names are looked for at each start"
    if not is_named_otherwise:
        not_parsed(monkeypatch)
    second, lines_of_second = started(*files, cache, caplog)
    assert isinstance(second.train_records, MappedRecords) != is_named_otherwise
    for data in (first, second):
        assert_same_records(without.train_records, data.train_records)
        assert data.fingerprint == without.fingerprint
        assert data._old_fingerprint == without._old_fingerprint
    assert lines_of_first == lines == lines_of_second
    text = "\n".join(lines)
    assert "orientation of 5 to 8" in text
    assert "orientation of 2 to 4" in text
    assert "written as text" in text
    assert ("are not as the files are called" in text) == is_named_otherwise


def test_pictures_and_rules_that_change_are_read_by_anew(tmp_path):
    path, images = odd_set(tmp_path)
    cache = tmp_path / "cache"
    before = read_coco(path, images, cache)
    assert (before.records[1].width, before.records[1].height) == (40, 20)
    PIL.Image.new("RGB", (60, 50)).save(images / "b.jpg")
    after = read_coco(path, images, cache)
    assert (after.records[1].width, after.records[1].height) == (60, 50)
    assert after.fingerprint != before.fingerprint
    assert_same(read_coco(path, images), after)
    plain = LabelSettings(mend=["sizes", "file_names"])
    with pytest.raises(DataError):
        read_coco(path, images, cache, labels=plain)
    (images / "b.jpg").rename(images / "B.JPG")
    assert read_coco(path, images, cache).records[1].path == images / "B.JPG"


def test_the_page_of_a_run_shows_pictures_as_they_were_trained_on(tmp_path, caplog):
    path, images = odd_set(tmp_path)
    PIL.Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(20, 40, 3)).save(tmp_path / "plain.png")
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    PIL.Image.open(tmp_path / "plain.png").save(images / "b.jpg", format="PNG", exif=exif)
    data, _ = started(path, images, None, caplog)
    shown = reader_of_pictures(data.train_records, data.pixel_rule)(SimpleNamespace(image_id=2))
    assert np.array_equal(shown, np.asarray(PIL.Image.open(tmp_path / "plain.png"))[::-1, ::-1])
