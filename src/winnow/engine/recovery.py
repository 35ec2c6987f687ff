"""Going on after trouble that passes: waits for data that comes back, and saves before a run ends for want of it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from winnow.engine.stop import StopRequest
from winnow.errors import DataError, MemoryExhaustedError, TransientDataError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

POLL_SECONDS = 0.2
REMIND_SECONDS = 60.0


class StoppedWaiting(Exception):  # noqa: N818 - an answer to a signal, not an error
    """A stop was requested while there was no data to go on with."""


def retry_when_data_returns(act: Callable[[], Result], save: Callable[[], None], stop: StopRequest) -> Result:
    """Call ``act`` again after each TransientDataError that passes; ``act`` must continue from the saved position.

    Saves before it waits. Raises StoppedWaiting if a stop is requested meanwhile, DataError if the data does not come
    back in time.
    """
    while True:
        try:
            return act()
        except TransientDataError as error:
            logger.error("%s: saving, then going on as soon as it can be read again", error)
            save()
            _wait(error, stop)


def _wait(error: TransientDataError, stop: StopRequest) -> None:
    began = reminded = time.monotonic()
    while not error.is_over():
        if stop.requested:
            raise StoppedWaiting
        now = time.monotonic()
        if now - began >= error.patience_seconds:
            raise DataError(f"{error}, and did not come back in {now - began:.0f} s") from error
        if now - reminded >= REMIND_SECONDS:
            reminded = now
            logger.error("still waiting: %s", error)
        time.sleep(POLL_SECONDS)
    logger.warning("going on after %.1f s", time.monotonic() - began)


@contextlib.contextmanager
def save_on_failure(save: Callable[[], None], is_whole: Callable[[], bool], advice: str) -> Iterator[None]:
    """Save before missing data or memory ends the run, where no update was under way; ``advice`` says how to go on."""
    try:
        yield
    except (DataError, MemoryExhaustedError):
        if is_whole():
            save()
        logger.error(advice)
        raise
