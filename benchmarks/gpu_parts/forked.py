"""Processes of the check: forks of one that has made the imports, each with its own log; cold ones where forks can't be used."""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import runpy
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = REPOSITORY / "train.py"


class Forked:
    """A child of this process."""

    def __init__(self, pid: int, leads_session: bool = False) -> None:
        self.pid = pid
        self._leads_session = leads_session
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, or minus the signal that ended it; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, seconds: float) -> int | None:
        """Return what ``poll`` does when it ended, or None after ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.poll()

    def kill(self) -> None:
        """End it (SIGKILL), and where it leads a session what it started, even if it has ended itself."""
        if self._leads_session:
            with contextlib.suppress(ProcessLookupError):  # it has not come to lead one yet, or none is left
                os.killpg(self.pid, signal.SIGKILL)
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def start(work: Callable[[], None] | Sequence[str], log: Path, leads_session: bool = False) -> Forked:
    """Start a process that does ``work``, a function or a command, and prints to ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns where there are threads; ours hold no lock
        pid = os.fork()
    if pid:
        return Forked(pid, leads_session)
    code = 1
    try:
        if leads_session:
            os.setsid()
        _redirect(log)
        if callable(work):
            work()
            code = 0
        else:
            os.execv(work[0], list(work))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - what the interpreter does at its end
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def start_training(
    arguments: Sequence[str], folder: Path, log: Path, is_warm: bool, environment: Mapping[str, str] | None = None
) -> Forked:
    """Start ``python train.py ARGUMENTS`` in ``folder``."""

    def program() -> None:
        os.chdir(folder)
        os.environ.update(environment or {})
        if not is_warm:
            os.execv(sys.executable, [sys.executable, str(TRAIN), *arguments])
        multiprocessing.process.ORIGINAL_DIR = str(folder)  # type: ignore[attr-defined]
        sys.path.insert(0, str(REPOSITORY))  # and src/ stays in it
        sys.argv = [str(TRAIN), *arguments]
        runpy.run_path(str(TRAIN), run_name="__main__")

    return start(program, log)


def _redirect(log: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    # What stands in for them in the parent (a test's capture) is not the child's.
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
