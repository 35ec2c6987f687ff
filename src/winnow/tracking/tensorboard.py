"""TensorBoard files beside any tracker: metrics go to both, written by a thread that training does not wait for."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from winnow.protocols import Tracker
from winnow.tracking.disk_thread import DiskThread
from winnow.tracking.epoch_table import numbers
from winnow.tracking.event_files import EventFiles

logger = logging.getLogger(__name__)

FOLDER = "tensorboard"
FLUSH_SECONDS = 5.0
STOP_SECONDS = 10.0

Point = tuple[float, int, dict[str, float]]
"""Unix seconds, step, values."""


class TensorBoardTracker:
    """Obeys winnow.protocols.Tracker: ``inner`` gets every call, and metrics go to ``run_folder``/tensorboard as well.

    Entered on a folder that was written to before, it goes on there: a step that is not higher than the last of its metric is a
    replay and is not written again.
    """

    def __init__(self, inner: Tracker, run_folder: Path) -> None:
        self._inner = inner
        self._folder = Path(run_folder).absolute() / FOLDER
        self._thread: DiskThread[Point] | None = None

    @property
    def run_id(self) -> str | None:
        return self._inner.run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._inner.log_params(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._inner.log_metrics(metrics, step)
        if self._thread is not None:
            self._thread.put((time.time(), int(step), numbers(metrics)))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self._inner.log_artifact(path, folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._inner.set_tags(tags)

    def flush(self) -> bool:
        """Wait for both; return True if all that was logged would survive a kill of this process."""
        written = self._thread is None or self._thread.flush(FLUSH_SECONDS)
        if not written:
            logger.error("TensorBoard's files lack what was logged last: a kill between now and then loses it there")
        return self._inner.flush() and written

    def finish(self, status: str) -> None:
        if self._thread is not None:
            self._thread.flush(FLUSH_SECONDS)
        self._inner.finish(status)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        self._thread = DiskThread(_TensorBoardSink(EventFiles(self._folder)))
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._thread is not None:
            self._thread.stop(STOP_SECONDS)
            self._thread = None
        self._inner.__exit__(*exc)


class _TensorBoardSink:
    """Obeys winnow.tracking.disk_thread.Sink."""

    name = "TensorBoard"

    def __init__(self, files: EventFiles) -> None:
        self.place = files.folder
        self._files = files
        self._unwritten: list[Point] = []
        self._is_open = False

    def open(self) -> None:
        if not self._is_open:
            self._files.open()
            self._is_open = True

    def take(self, item: Point) -> None:
        self._unwritten.append(item)

    def write(self) -> None:
        if self._unwritten:
            self._is_open = False  # where this fails, the file may end in half a record: the next one begins afresh
            self._files.add(self._unwritten)
            self._is_open = True
            self._unwritten.clear()

    def after_write(self, is_ending: bool) -> None:
        pass

    def close(self) -> None:
        self._files.close()
