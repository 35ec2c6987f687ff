"""Trouble of the place is told from a run's own faults, however it is wrapped."""

import errno
import os
import shutil
import subprocess

import pytest
from small_disk import fill, small_disk

from winnow.errors import DataError
from winnow.sweep.place import trouble_at, trouble_in


def raised(error, cause=None, handled=None, is_hidden=False):
    """Return ``error`` as it comes when it is raised from ``cause``, or while ``handled`` is."""
    try:
        try:
            if handled is not None:
                raise handled
        finally:
            if cause is not None:
                raise error from cause
            if is_hidden:
                error.__suppress_context__ = True
            raise error
    except type(error) as caught:
        return caught


def full(path="/runs/3/best.pth"):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS])
def test_what_the_system_says_of_the_place_is_its_trouble(number):
    assert trouble_in(OSError(number, "in words that nobody knows")) is not None
    assert os.strerror(number) in trouble_in(OSError(number, os.strerror(number), "/runs/3"))


@pytest.mark.parametrize("error", [
    raised(RuntimeError("no checkpoint"), cause=full()),
    raised(RuntimeError("no checkpoint"), handled=full()),
    raised(DataError("can't be read"), handled=full(), is_hidden=True),
    raised(RuntimeError("outer"), cause=raised(ValueError("inner"), handled=full())),
    ExceptionGroup("several", [ValueError("x"), full()]),
    RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
    OSError(f"Caught OSError in DataLoader worker process 0.\nOriginal Traceback:\n  File x\n{type(full()).__name__}: {full()}"),
    shutil.Error([("a", "b", str(full()))]),
])  # fmt: skip
def test_it_is_found_wherever_it_stands(error):
    assert "No space left on device" in trouble_in(error)
    assert "\n" not in trouble_in(error)


@pytest.mark.parametrize("error", [
    FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x"),
    PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x"),
    raised(RuntimeError("a bug"), cause=ValueError("x"), handled=KeyError("y")),
    MemoryError(),
])  # fmt: skip
def test_other_errors_are_the_runs_own(error):
    assert trouble_in(error) is None


def test_a_ring_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert trouble_in(first) is None


def test_a_full_disk_is_seen_until_there_is_room(tmp_path):
    with small_disk(tmp_path / "small") as place:
        assert trouble_at(place) is None
        filler = fill(place)
        assert "No space left on device" in trouble_at(place)
        filler.unlink()
        assert trouble_at(place) is None
        assert list(place.iterdir()) == []


def test_a_disk_that_became_read_only_is_seen(tmp_path):
    with small_disk(tmp_path / "small") as place:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert "Read-only file system" in trouble_at(place)


def test_a_folder_that_is_not_there_is_no_trouble_of_the_place(tmp_path):
    assert trouble_at(tmp_path / "nothing") is None
