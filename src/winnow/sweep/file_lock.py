"""Locks that end with their holder, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from winnow.errors import ConfigError

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def locked(path: str, flags: int) -> Iterator[int]:
    """Open the file at ``path`` with ``flags`` once nobody else holds it, and hold it inside; waits without polling.

    Works between threads too: a lock belongs to one opening of the file. Raises ConfigError if the file system has
    no locks.
    """
    file = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise ConfigError(
                    f"the file system of {path} has no file locks ({error}): store the study on a server"
                ) from error
            raise
        yield file
    finally:
        try:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing does not release what a forked child still has open
        finally:
            os.close(file)


@contextmanager
def locked_file(path: str) -> Iterator[None]:
    """Hold a lock as ``locked`` does, on a file that is there for nothing else."""
    with locked(path, os.O_CREAT | os.O_RDWR):
        yield
