"""A debugger in a trial, at a real terminal."""

import contextlib
import os
import pty
import select
import signal
import sys
import time

from sweep_parts import table, write_app


def test_breakpoints_stop_in_a_sweep_that_runs_in_this_process(tmp_path):
    app = write_app(tmp_path / "app")
    command = [sys.executable, "app.py", "-m", "mode=debug", "hydra.sweeper.in_process=true", "hydra.sweeper.n_jobs=1"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(app)
        os.execvp(command[0], [*command, "hydra.sweeper.n_trials=2"])
    try:
        for _ in range(2):
            assert "app.py" in read_until(terminal, b"(Pdb) ")
            os.write(terminal, b"p 'epochs', cfg.epochs\n")
            assert "('epochs', 3)" in read_until(terminal, b"(Pdb) ")
            os.write(terminal, b"continue\n")
        read_until(terminal, b"all trials are done")
        read_to_end(terminal)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert status == 0
    assert [row["status"] for row in table(app)] == ["completed"] * 2


def read_to_end(terminal, seconds=120):
    """Read until nobody has the other side open any more, which Linux tells by an error."""
    with contextlib.suppress(OSError):
        while select.select([terminal], [], [], seconds)[0]:
            os.read(terminal, 65536)


def read_until(terminal, words, seconds=120):
    said, deadline = b"", time.monotonic() + seconds
    while words not in said:
        assert select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], said.decode()
        said += os.read(terminal, 65536)
    return said.decode()
