"""What an annotation file comes to is kept, is the same whether it was parsed or mapped, and is never believed when damaged."""

import json
import multiprocessing
import pickle

import numpy as np
import pytest
from test_coco import CATEGORIES, annotation, image, write_coco

from winnow.errors import DataError
from winnow.families.detection.formats import coco
from winnow.families.detection.formats.coco import read_coco
from winnow.families.detection.formats.record_cache import MappedRecords

IMAGES = [image(7, "b.jpg"), image("thrée", "süb/\udcffa.jpg"), image(2**70, "c.jpg", width=2**23)]
OBJECTS = [
    annotation(1, image_id=2**70), annotation(2, (-4, 1, 9, 9), image_id=7, iscrowd=1), annotation(3, (1, 2, 3, 4), image_id=7),
    annotation(4, category_id=90, image_id=7, area=12.5),
]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    return *write_coco(tmp_path, IMAGES, OBJECTS), tmp_path / "cache"


def assert_same(first, second):
    assert (first.class_names, first.category_ids) == (second.class_names, second.category_ids)
    assert (first.fingerprint, first.repairs, first.doubts) == (second.fingerprint, second.repairs, second.doubts)
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
    monkeypatch.setattr(coco, "read_table", lambda _: pytest.fail("the file was parsed again"))


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
    (kept,) = files[2].iterdir()
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
    assert not (tmp_path / "cache").exists()


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
