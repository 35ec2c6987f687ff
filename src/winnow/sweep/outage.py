"""Tells a storage that is away for a while from one that refuses, and says so once at either end."""

from __future__ import annotations

import errno
import logging
import threading
import time

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

logger = logging.getLogger(__name__)

# Classes of SQLSTATE: connection, transaction rollback, resources, object in use, operator's doing, system.
AWAY_STATES = ("08", "40", "53", "55", "57", "58")
READ_ONLY_STATE = "25006"  # a standby that is about to take over
LASTING = (
    "access denied", "does not exist", "no pg_hba.conf entry", "no such column", "no such table",
    "no password supplied", "password authentication failed", "readonly database", "unable to open database file",
    "unknown database",
)  # fmt: skip

LASTING_ERRNOS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ENAMETOOLONG)


def is_away(error: BaseException) -> bool:
    """Return whether ``error`` says that the storage is locked, restarted, full or gone, so that the same call may
    succeed later.
    """
    cause = error.__cause__ or error if isinstance(error, StorageInternalError) else error
    if isinstance(cause, DBAPIError):
        return _is_database_away(cause)
    if isinstance(cause, OSError):
        return cause.errno not in LASTING_ERRNOS
    return isinstance(cause, PoolTimeoutError | PendingRollbackError)


def _is_database_away(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if state:
        return state.startswith(AWAY_STATES) or state == READ_ONLY_STATE
    message = str(error.orig).lower()
    return isinstance(error, OperationalError | InterfaceError) and not any(words in message for words in LASTING)


class Outage:
    """One line in the log when the storage ``name`` goes away and one when it is back, however many threads wait for it."""

    def __init__(self, name: str, patience_seconds: float) -> None:
        self._name = name
        self._patience_seconds = patience_seconds
        self._since: float | None = None
        self._lock = threading.Lock()

    def note(self, error: BaseException, is_endless: bool = False) -> None:
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                how_long = "until it does" if is_endless else f"for up to {self._patience_seconds:.0f} s"
                message = "storage %s does not answer, trying again %s: %s"
                logger.warning(message, self._name, how_long, first_line(error))

    def end(self) -> None:
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                logger.warning("storage %s is back after %.1f s", self._name, time.monotonic() - self._since)
                self._since = None

    def give_up(self, error: BaseException) -> None:
        logger.error("storage %s stayed away for %.0f s: %s", self._name, self._patience_seconds, first_line(error))


def first_line(error: BaseException) -> str:
    cause = error.__cause__ or error if isinstance(error, StorageInternalError) else error
    return str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
