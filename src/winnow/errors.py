"""The kinds of error winnow raises on purpose, by who must act on them, and how a program ends with one."""

import errno
import os
import sys
from collections.abc import Callable
from types import TracebackType

from winnow.masking import mask_output

CLEAN, PROBLEMS, BAD_USAGE = 0, 1, 2
"""What ``winnow …`` exits with."""
EXIT_UNREAD = 141
"""What a command exits with whose output nobody reads any more, as ``winnow … | head``: as shells say it."""
EXIT_INTERRUPTED = 75
"""What a run or sweep that was told to stop exits with, so that a queue can tell it from a finished (0) and a failed (1) one."""


class WinnowError(Exception):
    """The base of all errors whose message is meant for the user; shown without a traceback."""


class ConfigError(WinnowError):
    """A setting is unknown, malformed or contradicts another: change the config or the command line."""


class UntrainedError(ConfigError):
    """What is to train gets no gradient, or what is frozen gets one: see to the model, its losses or ``training.freeze``."""


class DataError(WinnowError):
    """A file of the data set is missing, unreadable or inconsistent: mend the data."""


class TransientDataError(DataError):
    """Data can't be read now but may be later: ``is_over()`` tells, and it is worth waiting for ``patience_seconds``."""

    def __init__(self, message: str, is_over: Callable[[], bool], patience_seconds: float) -> None:
        super().__init__(message)
        self.is_over = is_over
        self.patience_seconds = patience_seconds


class WeightsError(WinnowError):
    """Pretrained or initial weights are missing or do not fit the model: fetch them or change the model."""


class CheckpointError(WinnowError):
    """A checkpoint is damaged, not a checkpoint, or belongs to another run: choose another file."""


class ExportError(WinnowError):
    """A model can't be exported, or what was exported does not do what the model does: use the model as it is."""


class RankError(WinnowError):
    """Another process of a run on many ranks died or could not be reached: see to what it says, then resume."""


class DivergedError(WinnowError):
    """The loss stayed non-finite: lower the learning rate or look at the samples named in the message."""


class MemoryExhaustedError(WinnowError):
    """A batch needs more memory than there is: make batches smaller, as the message says."""


def refused_path(error: BaseException) -> str | None:
    """Return which path the system does not even look at, and why: a name of over 255 bytes, a folder that is closed to this
    user, links that lead in a circle; None for any other error."""
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return None


_REFUSED = frozenset((errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP))


def show_errors_as_messages() -> None:
    """End the process with the message alone where a WinnowError ends it; ``HYDRA_FULL_ERROR=1`` shows the traceback too. No
    secret of an address is shown, there or in any other output."""
    mask_output()
    sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, WinnowError) and os.environ.get("HYDRA_FULL_ERROR") != "1":
        sys.stderr.write(f"{kind.__name__}: {error}\n(HYDRA_FULL_ERROR=1 shows the traceback)\n")
    else:
        sys.__excepthook__(kind, error, traceback)
