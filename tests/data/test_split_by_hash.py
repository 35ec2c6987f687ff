"""Pictures are split by their bytes, which are read once."""

import os

import numpy as np
import pytest

from winnow.data.split_by_hash import place_of, places_of
from winnow.errors import DataError


def write(folder, count, start=0):
    folder.mkdir(exist_ok=True)
    for number in range(start, start + count):
        (folder / f"{number}.jpg").write_bytes(b"picture %d" % number)
    return [str(folder / f"{number}.jpg") for number in range(start, start + count)]


def test_places_are_spread_evenly_and_follow_the_bytes_alone(tmp_path):
    places = places_of(write(tmp_path / "a", 1000), tmp_path / "cache")
    assert np.histogram(places, 4, (0, 1))[0] == pytest.approx(250, abs=60)
    elsewhere = write(tmp_path / "b", 1000)[::-1]
    assert (places_of(elsewhere, tmp_path / "other") == places[::-1]).all()


def test_adding_files_moves_none_and_equal_ones_lie_together(tmp_path):
    paths = write(tmp_path / "a", 30)
    before = places_of(paths, tmp_path / "cache")
    (tmp_path / "a" / "copy.jpg").write_bytes(b"picture 3")
    more = [*write(tmp_path / "a", 10, start=30), str(tmp_path / "a" / "copy.jpg"), *paths]
    after = places_of(more, tmp_path / "cache")
    assert (after[11:] == before).all()
    assert after[10] == before[3]


def test_a_second_start_reads_no_picture_and_a_changed_one_is_read_again(tmp_path, monkeypatch):
    paths = write(tmp_path / "a", 20)
    first = places_of(paths, tmp_path / "cache")
    read = []
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *rest, **more: read.append(path) or real(path, *rest, **more))
    assert (places_of(paths, tmp_path / "cache") == first).all()
    assert not [path for path in read if str(path).endswith(".jpg")]
    status = os.stat(paths[4])
    (tmp_path / "a" / "4.jpg").write_bytes(b"picture 5")
    os.utime(paths[4], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert places_of(paths, tmp_path / "cache")[4] == first[5]
    assert [path for path in read if str(path).endswith(".jpg")] == [paths[4]]


def test_what_is_kept_is_made_anew_where_it_is_damaged(tmp_path, caplog):
    paths = write(tmp_path / "a", 5)
    first = places_of(paths, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)
    assert (places_of(paths, tmp_path / "cache") == first).all()
    assert "what was kept of images is made anew: " in caplog.text


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert len(places_of(write(tmp_path / "a", 3), tmp_path / "cache" / "below")) == 3
    assert "images are read anew at each start" in caplog.text


def test_a_picture_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg can't be read"):
        places_of([str(tmp_path / "none.jpg")], tmp_path)


def test_no_place_is_1():
    assert place_of("f" * 64) < 1
