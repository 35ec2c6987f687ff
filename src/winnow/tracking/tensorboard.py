"""TensorBoard files beside any tracker: metrics go to both, written by a thread that training does not wait for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from winnow.tracking.event_files import EventFiles

if TYPE_CHECKING:  # torch comes with it
    from winnow.protocols import Tracker

log = logging.getLogger(__name__)

FOLDER = "tensorboard"
WRITE_SECONDS = 0.25  # numbers wait so long for each other
FLUSH_SECONDS = 5.0
STOP_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 30.0
MAX_WAITING = 100_000

Point = tuple[float, int, dict[str, float]]


class TensorBoardTracker:
    """Obeys winnow.protocols.Tracker: ``inner`` gets every call, and metrics go to ``run_folder``/tensorboard as well.

    Entered on a folder that was written to before, it goes on there: a step that is not higher than the last of its metric is a
    replay and is not written again.
    """

    def __init__(self, inner: Tracker, run_folder: Path) -> None:
        self._inner = inner
        self._folder = Path(run_folder).absolute() / FOLDER
        self._thread: _WriterThread | None = None

    @property
    def run_id(self) -> str | None:
        return self._inner.run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._inner.log_params(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._inner.log_metrics(metrics, step)
        if self._thread is not None:
            self._thread.put(metrics, step)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self._inner.log_artifact(path, folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._inner.set_tags(tags)

    def flush(self) -> bool:
        """True where both would survive a kill."""
        written = self._thread is None or self._thread.flush(FLUSH_SECONDS)
        return self._inner.flush() and written

    def finish(self, status: str) -> None:
        if self._thread is not None:
            self._thread.flush(FLUSH_SECONDS)
        self._inner.finish(status)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        self._thread = _WriterThread(EventFiles(self._folder))
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._thread is not None:
            self._thread.stop(STOP_SECONDS)
            self._thread = None
        self._inner.__exit__(*exc)


class _WriterThread(threading.Thread):
    """Writes what ``put`` hands over, in its order. Never raises: what the disk refuses waits in memory and is tried again."""

    def __init__(self, files: EventFiles) -> None:
        super().__init__(name="winnow-tensorboard", daemon=True)
        self._files = files
        self._waiting: deque[Point] = deque()
        self._unwritten: list[Point] = []
        self._is_open = False
        self._num_put = self._num_written = self._num_dropped = 0
        self._wake = threading.Event()
        self._written = threading.Condition()
        self._stop_time: float | None = None
        self._retry_seconds = 0.0

    def put(self, metrics: Mapping[str, float], step: int) -> None:
        """Takes microseconds; what is no number is left to the tracker inside to complain about."""
        if len(self._waiting) >= MAX_WAITING:
            self._num_dropped += 1
            if self._num_dropped == 1:
                log.error("%s points wait to be written to %s: dropping new ones", MAX_WAITING, self._files.folder)
            return
        values = {}
        for name, value in metrics.items():
            with contextlib.suppress(TypeError, ValueError):
                values[name] = float(value)
        self._waiting.append((time.time(), int(step), values))
        self._num_put += 1

    def flush(self, seconds: float) -> bool:
        """Wait until what was put is out of a kill's reach; False when time was short."""
        goal, end = self._num_put, time.monotonic() + seconds
        self._wake.set()
        with self._written:
            while self._num_written < goal and self.is_alive() and time.monotonic() < end:
                self._written.wait(0.1)
        if self._num_written < goal:
            log.error("TensorBoard's files lack what was logged last: a kill between now and then loses it there")
        return self._num_written >= goal

    def stop(self, seconds: float) -> None:
        """Write what is left, for at most ``seconds``, and end the thread."""
        self._stop_time = time.monotonic() + seconds
        self._wake.set()
        self.join(seconds + 1)
        if lost := self._num_put - self._num_written + self._num_dropped:
            log.error("%s points could not be written to %s and are lost there", lost, self._files.folder)

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
        self._files.close()

    def _work(self) -> None:
        if not self._is_open:
            self._files.open()
            self._is_open = True
        while self._waiting:
            self._unwritten.append(self._waiting.popleft())
        if self._unwritten:
            self._files.add(self._unwritten)
        with self._written:
            self._num_written += len(self._unwritten)
            self._unwritten.clear()
            self._written.notify_all()
        if self._retry_seconds:
            log.warning("TensorBoard's files in %s are written again; nothing waits in memory", self._files.folder)
            self._retry_seconds = 0.0

    def _complain(self, error: OSError) -> None:
        if not self._retry_seconds:
            log.error("TensorBoard's files in %s can't be written (%s): training goes on", self._files.folder, error)
        self._is_open = False  # the file may end in half a record: the next one begins afresh
        self._retry_seconds = min(max(1.0, 2 * self._retry_seconds), LONGEST_RETRY_SECONDS)
