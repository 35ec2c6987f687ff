"""A polite end on request: signals are noted when they come and obeyed at the next step."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """A context in which Ctrl-C, SIGTERM and SIGUSR1 set ``requested``; a second Ctrl-C interrupts at once. ``answer`` is what
    the user is told to happen then."""

    def __init__(self, answer: str = "saving after this step, then stopping") -> None:
        self.requested = False
        self._answer = answer
        self._process = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python lets only the main thread handle signals; elsewhere whoever owns the main thread decides.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        # Loader workers inherit this handler, and a terminal sends Ctrl-C to them as well.
        if os.getpid() != self._process:
            return
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning("%s: %s (Ctrl-C again: at once)", signal.Signals(number).name, self._answer)
