import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from winnow.tracking.spawned import Spawned

# The main thread forks as a loader does, children that live on, while another thread starts programs.
FORKING = """
import os, sys, threading, time
from pathlib import Path
from winnow.tracking.spawned import Spawned

longest, children, is_over = 0.0, [], False

def start():
    global longest, is_over
    for _ in range(40):
        began = time.monotonic()
        Spawned([sys.executable, "-S", "-c", ""], dict(os.environ), Path(sys.argv[1])).wait()
        longest = max(longest, time.monotonic() - began)
    is_over = True

thread = threading.Thread(target=start, daemon=True)
thread.start()
deadline = time.monotonic() + 60
while not is_over and time.monotonic() < deadline:
    if len(children) < 2000:
        child = os.fork()
        if child == 0:
            time.sleep(120)
            os._exit(0)
        children.append(child)
    time.sleep(0.001)
for child in children:
    os.kill(child, 9)
print("over" if is_over else "stuck", longest)
"""


def test_a_program_is_started_while_another_thread_forks(tmp_path: Path):
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "log")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("over"), printed


def test_output_is_appended_and_the_end_is_told(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("before\n")
    child = Spawned(
        [sys.executable, "-c", "import os, sys; print('out', os.getsid(0) == os.getpid()); sys.exit(3)"], {}, log
    )
    assert (child.wait(), child.poll(), log.read_text()) == (3, 3, "before\nout True\n")


def test_a_kill_is_told_as_its_signal(tmp_path: Path):
    child = Spawned([sys.executable, "-c", "import time; time.sleep(60)"], {}, tmp_path / "log")
    assert child.poll() is None
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -9


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Spawned([str(tmp_path / "nothing")], {}, tmp_path / "log")
