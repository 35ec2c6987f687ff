"""A file in a run folder is the old one or the whole new one, whatever happens to its writer."""

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from winnow.run_folder import MadeFolders, sole_owner, whole_file, write_whole

KILLED = """
import os, pathlib, signal, sys
from winnow.run_folder import whole_file
with whole_file(pathlib.Path(sys.argv[1])) as file:
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("content", ["Größe", b"\x00\xff"])
def test_what_is_written_is_there_and_nothing_else(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("old")
    write_whole(path, content, mode=0o600)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_killed_writer_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_writer_that_fails_leaves_the_old_content_and_no_leftover(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with whole_file(path) as file:
            file.write(b"half of it")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_writers_at_once_do_not_mix(tmp_path):
    path, texts = tmp_path / "file", [str(number) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(path, text), texts * 4))
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["file"]


def refused(folder, inside=lambda made: None):
    with contextlib.suppress(ZeroDivisionError), MadeFolders(folder) as made:
        made.make()
        inside(made)
        raise ZeroDivisionError


def test_a_refused_command_removes_what_it_made_and_nothing_else(tmp_path):
    (tmp_path / "there").mkdir()
    refused(tmp_path / "there/new/run", lambda made: write_whole(tmp_path / "there/new/run/file", "x"))
    refused(tmp_path / "there")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_what_others_put_beside_it_stays(tmp_path):
    refused(tmp_path / "new/run", lambda made: write_whole(tmp_path / "new/theirs", "x"))
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "theirs"]


def test_what_has_begun_stays(tmp_path):
    refused(tmp_path / "run", lambda made: made.keep())
    made = MadeFolders(tmp_path / "held")
    made.make()
    with sole_owner(tmp_path / "held"):  # another run, which was faster
        made.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "run"]


def test_folders_above_one_that_cannot_be_made_are_removed(tmp_path):
    with pytest.raises(OSError, match="too long"), MadeFolders(tmp_path / "new" / ("x" * 300)) as made:
        made.make()
    assert not list(tmp_path.iterdir())
