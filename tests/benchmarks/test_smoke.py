"""Each benchmark runs to its end, at a size that measures nothing."""

import os
import subprocess
import sys

import pytest
from composed import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in sorted(BENCHMARKS.glob("*.py")) if path.name != "gpu_check.py"])
def test_it_runs_to_its_end(name, tmp_path):
    """The GPU check has a rehearsal of its own, in test_gpu_check.py."""
    command = [sys.executable, str(BENCHMARKS / name), "--smoke"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.strip()
    if ended.stdout.startswith("skipped:"):
        pytest.skip(ended.stdout.strip())
