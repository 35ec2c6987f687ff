"""Puts a run's events into its outbox and keeps the uploader alive, in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from winnow.tracking.disk_thread import DiskThread
from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings
from winnow.tracking.history import Entry, History
from winnow.tracking.launcher import UploaderProcess
from winnow.tracking.outbox import Kind, OutboxFile

SYNC_SECONDS = 1.0  # between two fsyncs


class OutboxWriter:
    """Writes events in the order of ``put``: metrics soon, all else, and what ``flush`` asks for, at once. Never raises."""

    def __init__(self, folder: TrackingFolder, settings: UploadSettings, max_waiting: int = 100_000) -> None:
        self.uploader = UploaderProcess(folder, settings)
        self._sink = _OutboxSink(folder, settings, self.uploader)
        self._thread = DiskThread(self._sink, max_waiting)

    def start(self) -> None:
        self._thread.start()

    def put(self, kind: Kind, payload: Mapping[str, Any]) -> None:
        """Queue an entry, within microseconds; one thread calls this. The caller must not change ``payload`` afterwards."""
        entry = Entry(time.time_ns() // 1_000_000, kind, payload)
        self._thread.put(entry, at_once=kind != "metrics", is_last=kind == "finish")

    def flush(self, seconds: float) -> bool:
        return self._thread.flush(seconds)

    def stop(self, seconds: float) -> None:
        """Write and fsync what is left, for at most ``seconds``; the uploader goes on by itself."""
        self._thread.stop(seconds)
        self.uploader.release()

    @property
    def last_sequence(self) -> int:
        """Return the sequence number of the newest event; 0 before the outbox was opened."""
        return self._sink.history.last_sequence if self._sink.history else 0


class _OutboxSink:
    """Obeys winnow.tracking.disk_thread.Sink."""

    name = "tracking"

    def __init__(self, folder: TrackingFolder, settings: UploadSettings, uploader: UploaderProcess) -> None:
        self.place = folder.outbox
        self.history: History | None = None
        self._folder = folder
        self._settings = settings
        self._uploader = uploader
        self._file = OutboxFile(folder.outbox)
        self._unwritten: list[bytes] = []
        self._needs_sync = False
        self._last_sync = 0.0

    def open(self) -> None:
        """Make the folder, mend and read a torn outbox, and write down that this session starts."""
        if self.history is not None:
            return
        self._folder.path.mkdir(exist_ok=True)
        self._settings.write(self._folder.settings)
        self._file.open()
        history = History.read(self._folder.outbox)
        history.last_sequence = max(history.last_sequence, RunState.read(self._folder.state).sequence)
        self.history = history

    def take(self, item: Entry) -> None:
        assert self.history is not None
        self._unwritten += [event.encode() for event in self.history.events(item)]

    def write(self) -> None:
        if self._unwritten:
            self._file.append(b"".join(self._unwritten))
            self._unwritten.clear()
            self._needs_sync = True

    def after_write(self, is_ending: bool) -> None:
        now = time.monotonic()
        if self._needs_sync and (is_ending or now - self._last_sync > SYNC_SECONDS):
            self._file.sync()
            self._needs_sync, self._last_sync = False, now
        if not is_ending:
            self._uploader.keep_alive()

    def close(self) -> None:
        self._file.close()
