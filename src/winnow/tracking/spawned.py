"""A child process begun while other threads fork: without ``subprocess``, which can then wait for ever."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


class Spawned:
    """A program in a session of its own, deaf to the terminal's Ctrl-C, whose output is appended to ``output``.

    ``subprocess.Popen`` waits until a pipe to its child is closed. Where the main thread forks a loader process in that moment
    (multiprocessing, no exec), the pipe lives on there, and the thread that called ``Popen`` waits for as long as that process
    lives: the whole run. ``posix_spawn`` has no such pipe. Raises OSError if the program can't be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self.pid = os.posix_spawn(
                command[0], list(command), environment, setsid=True,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
            )  # fmt: skip
        finally:
            os.close(log)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, 255 where it can't be known; None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # somebody else in this process asked first
                pid, status = self.pid, 0xFF00
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code
