import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from winnow.engine.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for step in range(40):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    activations = [b"x" * 16_000_000 for _ in range(4)]
    del activations
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_a_step_freed_is_there_for_the_next_without_new_pages():
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True).stdout
        )
        for mode in ("kept", "default")
    }
    assert faults["kept"] < 1000 < 50_000 < faults["default"]
