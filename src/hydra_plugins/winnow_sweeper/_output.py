"""A trial's output, sent into its own folder whoever writes it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send standard output and error of this process and its children to a file, at the level of file descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # a full disk, or closed by the job
            sys.stdout.flush()
            sys.stderr.flush()
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)


def file_for_output() -> IO[bytes] | None:
    """Return a file for what a worker says outside of its jobs; None where there is no room for one."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return None
