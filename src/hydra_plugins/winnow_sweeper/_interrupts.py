"""How a request to stop reaches the job in this process: never lost, never given to another job, whatever the job is doing."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

_SIGNALS = (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)
_REPEAT_SECONDS = 0.05
PATIENCE_SECONDS = 3.0


class Interrupts:
    """Of the jobs of one process, by key; to be made in its main thread.

    A run of winnow listens to SIGUSR1 only while it trains. So the signal is repeated until somebody else's handler takes it;
    a job that has none for ``patience`` seconds gets a KeyboardInterrupt. ``also`` are signals that mean the same here.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS, also: Sequence[signal.Signals] = ()) -> None:
        self._patience = patience
        self._signals = (*_SIGNALS, *also)
        self._lock = threading.RLock()  # the handler may come in while its own thread holds it
        self._current: str | None = None
        self._wanted: set[str] = set()
        self._relayed: str | None = None
        self._is_late = False
        self._handler = self._note
        self.install()

    def install(self) -> None:
        """Take the signals, again if a job has left them to somebody else."""
        for number in self._signals:
            signal.signal(number, self._handler)

    @contextlib.contextmanager
    def during(self, key: str) -> Iterator[None]:
        """Direct requests for ``key`` to what runs inside."""
        self._is_late = False
        with self._lock:
            self._current = key
            was_asked_before = key in self._wanted
        if was_asked_before:
            self.request(key)
        try:
            yield
        finally:
            self._current = None

    @property
    def is_asked(self) -> bool:
        """Return whether the current job was asked to stop."""
        return self._current in self._wanted

    @property
    def is_busy(self) -> bool:
        return self._current is not None

    def request(self, key: str) -> None:
        """Ask the job ``key`` to stop, now or as soon as it begins; from any thread."""
        with self._lock:
            self._wanted.add(key)
            if self._current != key or self._relayed == key:
                return
            self._relayed = key
        threading.Thread(target=self._relay, args=(key,), name="interrupt", daemon=True).start()

    def request_current(self) -> None:
        if (key := self._current) is not None:
            self.request(key)

    def _relay(self, key: str) -> None:
        deadline = time.monotonic() + self._patience
        while self._current == key:
            is_taken = signal.getsignal(signal.SIGUSR1) != self._handler
            self._is_late = not is_taken and time.monotonic() > deadline
            os.kill(os.getpid(), signal.SIGUSR1)
            if is_taken:
                return
            time.sleep(_REPEAT_SECONDS)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._current is None:
            return
        if self._is_late:
            self._is_late = False
            raise KeyboardInterrupt
        self.request_current()
