"""TensorBoard's event files of one run: what they hold already, and adding to them. The only module that imports TensorBoard."""

from __future__ import annotations

import io
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

_HEADER = struct.Struct("<QI")  # length, its checksum
_FOOTER_LENGTH = 4


class EventFiles:
    """Points of one run, each step of a metric once: what an earlier part of the run has written is not written again.

    Every opening begins a file of its own, as TensorBoard expects, so what a killed writer tore is never appended to.
    All methods raise OSError when the disk does not obey; after that, ``open`` again and ``add`` again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder
        self._descriptor: int | None = None
        self._highest: dict[str, int] = {}

    def open(self) -> None:
        self.close()
        self.folder.mkdir(exist_ok=True)
        self._highest = highest_steps(self.folder)
        self._path = self.folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._write([Event(wall_time=time.time(), file_version="brain.Event:2")])

    def add(self, points: Iterable[tuple[float, int, Mapping[str, float]]]) -> None:
        """Write (Unix seconds, step, values) in the order in which they were logged; on return they survive a kill of
        this process.
        """
        events = []
        highest = dict(self._highest)
        for seconds, step, values in points:
            new = {name: value for name, value in values.items() if step > highest.get(name, step - 1)}
            highest.update(dict.fromkeys(new, step))
            if new:
                summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in new.items()])
                events.append(Event(wall_time=seconds, step=step, summary=summary))
        if events:
            self._write(events)
        self._highest = highest

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, events: list[Event]) -> None:
        assert self._descriptor is not None
        if not self._path.exists():
            raise FileNotFoundError(f"{self._path} has vanished")
        encoded = io.BytesIO()
        writer = RecordWriter(encoded)
        for event in events:
            writer.write(event.SerializeToString())
        rest = memoryview(encoded.getvalue())
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def highest_steps(folder: Path) -> dict[str, int]:
    """Return metric → its highest step in any event file of ``folder``."""
    highest: dict[str, int] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in read_events(path):
            for value in event.summary.value:
                highest[value.tag] = max(event.step, highest.get(value.tag, event.step))
    return highest


def read_events(path: Path) -> Iterator[Event]:
    """Yield whole events, up to a torn one (as a killed process leaves at the end of a file) or up to what is no event
    any more.
    """
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, _ = _HEADER.unpack(header)
            data = file.read(length)
            if len(file.read(_FOOTER_LENGTH)) < _FOOTER_LENGTH:
                return
            try:
                event = Event.FromString(data)
            except DecodeError:
                return
            yield event
