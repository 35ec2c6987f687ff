"""The thread that puts on disk what a run logs, so that training waits for no disk and dies of none."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item", contravariant=True)

WRITE_SECONDS = 0.25  # items wait so long for each other: a wake-up per step would take its time from the step
LONGEST_RETRY_SECONDS = 30.0
SLOW_DISK_SECONDS = 60.0


class Sink(Protocol[Item]):
    """Where items go. Every method is called by the thread alone, and may raise OSError but for ``take`` and ``close``."""

    name: str
    place: Path

    def open(self) -> None:
        """Make ready to write, before each writing; do nothing while all is well."""
        ...

    def take(self, item: Item) -> None:
        """Keep ``item`` in memory until the next ``write``."""
        ...

    def write(self) -> None:
        """Write all that was taken, so that it survives a kill of the process; after an OSError, try again."""
        ...

    def after_write(self, is_ending: bool) -> None:
        """Look after the files, after each writing."""
        ...

    def close(self) -> None: ...


class DiskThread(threading.Thread, Generic[Item]):
    """Gives ``sink`` what is put, in its order, within ``WRITE_SECONDS``. Never raises: what the disk refuses is kept in
    memory, up to ``max_waiting`` items, and tried again."""

    def __init__(self, sink: Sink[Item], max_waiting: int = 100_000) -> None:
        super().__init__(name=f"winnow-{sink.name}", daemon=True)
        self._sink = sink
        self._max_waiting = max_waiting
        self._waiting: deque[Item] = deque()
        self._num_put = self._num_taken = self._num_written = self._num_dropped = 0
        self._wake = threading.Event()
        self._written = threading.Condition()
        self._stop_time: float | None = None
        self._retry_seconds = 0.0
        self._has_been_too_slow = False

    def put(self, item: Item, at_once: bool = False, is_last: bool = False) -> None:
        """Queue ``item``, within microseconds; one thread calls this. The caller must not change it afterwards. The
        last is never dropped.
        """
        if len(self._waiting) >= self._max_waiting and not is_last:
            self._num_dropped += 1
            if self._num_dropped == 1:
                logger.error(
                    "%s: %s events wait to be written to %s: dropping new ones",
                    *(self._sink.name, self._max_waiting, self._sink.place),
                )
            return
        self._waiting.append(item)
        self._num_put += 1
        if at_once:
            self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Wait until what was put is with the operating system, out of a kill's reach; False when time was short.

        A disk that is only slow gets up to ``SLOW_DISK_SECONDS``, once: it holds up the checkpoint that comes next as well, and
        one that knows more than the record would lose events for good.
        """
        goal, began = self._num_put, time.monotonic()
        self._wake.set()

        def is_over() -> bool:
            waited = time.monotonic() - began
            is_hopeless = self._retry_seconds > 0 or self._has_been_too_slow or not self.is_alive()
            return self._num_written >= goal or waited > (seconds if is_hopeless else max(seconds, SLOW_DISK_SECONDS))

        with self._written:
            while not is_over():
                self._written.wait(min(0.1, seconds))
            self._has_been_too_slow = self._num_written < goal
            return not self._has_been_too_slow

    def stop(self, seconds: float) -> None:
        """Write what is left, for at most ``seconds``, and end the thread."""
        self._stop_time = time.monotonic() + seconds
        self._wake.set()
        self.join(seconds + 1)
        if lost := self._num_put - self._num_written + self._num_dropped:
            logger.error(
                "%s: %s events could not be written to %s and are lost", self._sink.name, lost, self._sink.place
            )

    def run(self) -> None:
        while True:
            self._wake.wait(WRITE_SECONDS)
            self._wake.clear()
            stop_time = self._stop_time
            try:
                self._work(is_ending=stop_time is not None)
            except OSError as error:
                self._complain(error)
                if stop_time is None:
                    time.sleep(min(self._retry_seconds, 1.0))
            if stop_time is not None and (self._num_written == self._num_put or time.monotonic() > stop_time):
                break
        self._sink.close()

    def _work(self, is_ending: bool) -> None:
        self._sink.open()
        while self._waiting:
            self._sink.take(self._waiting.popleft())
            self._num_taken += 1
        self._sink.write()
        with self._written:
            self._num_written = self._num_taken
            self._written.notify_all()
        self._sink.after_write(is_ending)
        if self._retry_seconds:
            logger.warning("%s writes to %s again; nothing waits in memory", self._sink.name, self._sink.place)
            self._retry_seconds = 0.0

    def _complain(self, error: OSError) -> None:
        if not self._retry_seconds:
            logger.error(
                "%s can't write to %s (%s): training goes on, events wait in memory",
                *(self._sink.name, self._sink.place, error),
            )
        self._retry_seconds = min(max(1.0, 2 * self._retry_seconds), LONGEST_RETRY_SECONDS)
