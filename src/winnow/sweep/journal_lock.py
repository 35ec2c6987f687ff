"""Keeps Optuna's own journal writers (optuna-dashboard, a user's script) out while one of ours writes."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger(__name__)

LINK_SUFFIX = ".lock"  # the name that Optuna's JournalFileSymlinkLock and JournalFileOpenLock share
# Begins the target of our link; that of Optuna's is the journal as its user named it. Ours exists too, since Optuna's writers
# spin on a link that leads nowhere.
OURS = ".//"
GRACE_SECONDS = 3.0
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def shut_out_optuna(path: str) -> Iterator[None]:
    """Hold the link that Optuna takes for its lock on the journal at ``path``; only for holders of the journal's flock.

    So a link of ours found here was left by a dead process and goes at once. One of Optuna's goes when it is the same for
    ``GRACE_SECONDS`` (Optuna itself waits 30): its holder keeps it for one append.
    """
    link = path + LINK_SUFFIX
    try:
        _take(link, OURS + os.path.basename(path))
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        yield  # no symbolic links here, so Optuna's writers have no lock either
        return
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(link)


def _take(link: str, target: str) -> None:
    holder: tuple[int, int] | None = None
    since = 0.0
    while True:
        try:
            os.symlink(target, link)
            return
        except FileExistsError:
            pass
        with suppress(FileNotFoundError):
            status = os.lstat(link)
            if holder != (status.st_ino, status.st_ctime_ns):
                holder, since = (status.st_ino, status.st_ctime_ns), time.monotonic()
            if _is_ours(link):
                os.unlink(link)
            elif time.monotonic() - since > GRACE_SECONDS:
                logger.warning("%s has not been released for %.0f s: taken from its dead holder", link, GRACE_SECONDS)
                os.unlink(link)
            else:
                time.sleep(0.002)


def _is_ours(link: str) -> bool:
    try:
        return os.readlink(link).startswith(OURS)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a plain file: JournalFileOpenLock
            return False
        raise
