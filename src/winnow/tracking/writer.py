"""The thread that puts a run's events on disk and keeps the uploader alive, so that training waits for neither."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings
from winnow.tracking.history import Entry, History
from winnow.tracking.launcher import UploaderProcess
from winnow.tracking.outbox import Kind, OutboxFile

log = logging.getLogger(__name__)

WRITE_SECONDS = 0.25  # numbers wait so long for each other: a wake-up per step would take its time from the step
SYNC_SECONDS = 1.0  # between two fsyncs
LONGEST_RETRY_SECONDS = 30.0
SLOW_DISK_SECONDS = 60.0


class OutboxWriter(threading.Thread):
    """Writes entries in the order of ``put``: metrics within ``WRITE_SECONDS``, all else, and what ``flush`` asks for, at once.
    Never raises: what the disk refuses is kept in memory, up to ``max_waiting`` entries, and tried again."""

    def __init__(self, folder: TrackingFolder, settings: UploadSettings, max_waiting: int = 100_000) -> None:
        super().__init__(name="winnow-tracking", daemon=True)
        self.uploader = UploaderProcess(folder)
        self._folder = folder
        self._settings = settings
        self._max_waiting = max_waiting
        self._file = OutboxFile(folder.outbox)
        self._history: History | None = None
        self._waiting: deque[Entry] = deque()
        self._unwritten: list[bytes] = []
        self._num_put = self._num_taken = self._num_written = self._num_dropped = 0
        self._wake = threading.Event()
        self._stop_time: float | None = None
        self._written = threading.Condition()
        self._has_been_too_slow = False
        self._needs_sync = False
        self._last_sync = 0.0
        self._retry_seconds = 0.0

    def put(self, kind: Kind, payload: Mapping[str, Any]) -> None:
        """Takes microseconds; called by one thread. The caller must not change ``payload`` afterwards."""
        if len(self._waiting) >= self._max_waiting and kind != "finish":
            self._num_dropped += 1
            if self._num_dropped == 1:
                log.error(
                    "%s events wait to be written to %s: dropping new ones", self._max_waiting, self._folder.outbox
                )
            return
        self._waiting.append(Entry(time.time_ns() // 1_000_000, kind, payload))
        self._num_put += 1
        if kind != "metrics":
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
        """Write and fsync what is left, for at most ``seconds``, and end the thread; the uploader goes on by itself."""
        self._stop_time = time.monotonic() + seconds
        self._wake.set()
        self.join(seconds + 1)
        self.uploader.release()
        if lost := self._num_put - self._num_written + self._num_dropped:
            log.error("%s events could not be written to %s and are lost", lost, self._folder.outbox)

    @property
    def last_sequence(self) -> int:
        """Of the newest event; 0 before the outbox was opened."""
        return self._history.last_sequence if self._history else 0

    def run(self) -> None:
        while True:
            self._wake.wait(WRITE_SECONDS)
            self._wake.clear()
            stop_time = self._stop_time
            try:
                self._work()
            except OSError as error:
                self._complain(error)
                if stop_time is None:
                    time.sleep(min(self._retry_seconds, 1.0))
            if stop_time is not None and (self._num_written == self._num_put or time.monotonic() > stop_time):
                break
        self._file.close()

    def _work(self) -> None:
        history = self._history or self._open()
        while self._waiting:
            self._unwritten += [event.encode() for event in history.events(self._waiting.popleft())]
            self._num_taken += 1
        if self._unwritten:
            self._file.append(b"".join(self._unwritten))
            self._unwritten.clear()
            self._needs_sync = True
        with self._written:
            self._num_written = self._num_taken
            self._written.notify_all()
        now = time.monotonic()
        if self._needs_sync and (now - self._last_sync > SYNC_SECONDS or self._stop_time is not None):
            self._file.sync()
            self._needs_sync, self._last_sync = False, now
        if self._stop_time is None:
            self.uploader.keep_alive()
        if self._retry_seconds:
            log.warning("tracking writes to %s again; nothing waits in memory", self._folder.outbox)
            self._retry_seconds = 0.0

    def _open(self) -> History:
        """The folder made, a torn outbox mended and read, and the start of this session written down."""
        self._folder.path.mkdir(exist_ok=True)
        self._settings.write(self._folder.settings)
        self._file.open()
        history = History.read(self._folder.outbox)
        history.last_sequence = max(history.last_sequence, RunState.read(self._folder.state).sequence)
        self._history = history
        return history

    def _complain(self, error: OSError) -> None:
        if not self._retry_seconds:
            log.error(
                "tracking can't write to %s (%s): training goes on, events wait in memory", self._folder.path, error
            )
        self._retry_seconds = min(max(1.0, 2 * self._retry_seconds), LONGEST_RETRY_SECONDS)
