"""Files of every kind, changed at random, are read or refused in one message: a few cases of ``benchmarks/fuzz_files.py``."""

import subprocess
import sys

import pytest
from composed import REPOSITORY


@pytest.mark.slow
def test_no_changed_file_ends_in_a_traceback_or_runs_anything():
    program = [sys.executable, str(REPOSITORY / "benchmarks" / "fuzz_files.py"), "310", "--seed", "7"]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 distinct faults, 0 executed" in ended.stdout
