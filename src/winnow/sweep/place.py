"""Trouble of the place where a run works: the disk is full, read-only, gone or failing. No fault of the run's."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from winnow.sweep.journal import write_all

ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS)
_WORDS = (
    *(os.strerror(number).lower() for number in ERRNOS),
    "database or disk is full",
    "disk i/o error",
)  # SQLite's, too
_PROBE_BYTES = 1 << 14


def trouble_in(error: BaseException) -> str | None:
    """Return, in one line, the trouble of the place that ``error`` tells of; None where it tells of none.

    It may stand anywhere among its causes and contexts, and in words alone: a loader process, a cluster and C++ code hand on
    the text of an error without its number.
    """
    for one in _chain(error):
        is_known = isinstance(one, OSError) and one.errno in ERRNOS
        if is_known or any(words in str(one).lower() for words in _WORDS):
            return _line_of(one)
    return None


def trouble_at(folder: Path) -> str | None:
    """Return why nothing can be written into ``folder``, where the place is to blame; None otherwise. Tries it."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            write_all(file.fileno(), os.urandom(_PROBE_BYTES))  # zeros take no room on some disks
            os.fsync(file.fileno())
    except OSError as error:
        return trouble_in(error)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that led to it or is grouped in it, each once; a suppressed context led to it, too."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        grouped = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [one.__cause__, one.__context__, *grouped]


def _line_of(error: BaseException) -> str:
    """Return the line of an error's text that names the trouble."""
    lines = [line.strip() for line in str(error).splitlines() if any(words in line.lower() for words in _WORDS)]
    text = lines[-1] if lines else " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"
