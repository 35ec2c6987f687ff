"""A file in a run folder is the old one or the whole new one, whatever happens to its writer."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from winnow.run_folder import whole_file, write_whole

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
