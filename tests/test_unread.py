"""Output that nobody reads any more, as with ``| head``, ends a command quietly."""

import os
import subprocess
import sys

import pytest
from composed import REPOSITORY


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "winnow", "train", "--help"],
        ["-m", "winnow", "--help"],
        ["train.py", "--help"],
        ["train.py", "--cfg", "job"],
        ["-m", "winnow", "data", "describe", "src/winnow/conf"],
    ],
    ids=lambda command: " ".join(command),
)
def test_a_reader_that_has_gone_is_no_error(command):
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert "BrokenPipe" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode in (0, 1, 141)
