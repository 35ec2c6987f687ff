"""The outbox: events of a run as JSON lines in one append-only file. Knows format and disk, nothing of MLflow."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from winnow.reading import parse_json

logger = logging.getLogger(__name__)

Kind = Literal["start", "params", "tags", "metrics", "artifact", "finish"]
TAIL_BYTES = 1 << 20  # no line is longer: the tracker splits what is larger


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    ``sequence`` rises by one from 1; ``time_ms`` is Unix time in ms. ``payload``: name → value for params and tags;
    ``{step, values}`` for metrics; ``{path, folder}`` for an artifact; ``{status}`` for finish; empty for start.
    """

    sequence: int
    time_ms: int
    kind: Kind
    payload: Mapping[str, Any]

    def encode(self) -> bytes:
        """Return the event as one line, newline included; non-finite numbers as the words ``float`` reads back, since
        JSON has none.
        """
        fields = {"sequence": self.sequence, "time_ms": self.time_ms, "kind": self.kind, "payload": self.payload}
        return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def encode_values(values: Mapping[str, float]) -> dict[str, float | str]:
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}


def decode_values(values: Mapping[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def decode(line: bytes) -> Event | None:
    """Return the event of a whole line; None if the line is damaged."""
    try:
        fields = parse_json(line)
        event = Event(int(fields["sequence"]), int(fields["time_ms"]), fields["kind"], dict(fields["payload"]))
    except (ArithmeticError, ValueError, LookupError, TypeError):
        return None
    return event if event.kind in get_args(Kind) else None


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Yield events from byte ``offset`` on, each with the offset behind it.

    A last line without its newline is still being written and is left for later; a damaged line is logged and skipped;
    no file means no events.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            event = decode(line)
            if event is None:
                logger.error("skipped a damaged line that ends at byte %s of %s: %.80r", offset, path, line)
            else:
                yield event, offset


def read_last_event(path: Path) -> Event | None:
    """Return the newest whole event, without reading the rest of the file; None if there is none."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for length in (TAIL_BYTES // 64, 4 * TAIL_BYTES):
            file.seek(max(0, size - length))
            lines = file.read().split(b"\n")[:-1]
            event = next((event for event in map(decode, reversed(lines)) if event is not None), None)
            if event is not None:
                return event
    return None


class OutboxFile:
    """The writing end. Each method raises OSError when the disk does not obey; ``append`` may then be called again with
    the same lines: whatever part of them was written before is taken back first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._size = 0

    def open(self) -> None:
        """Open or create the file, and cut a last line that a killed writer left without its end."""
        self.close()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._size = _cut_torn_line(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def append(self, lines: bytes) -> None:
        """Hand the lines to the operating system: from here on they survive a kill of this process."""
        if self._descriptor is None:
            self.open()
        assert self._descriptor is not None
        if not self._is_still_there():
            self.close()
            raise FileNotFoundError(f"{self.path} has vanished")
        if os.fstat(self._descriptor).st_size > self._size:
            os.ftruncate(self._descriptor, self._size)
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(lines)

    def sync(self) -> None:
        """Sync to disk: from here on what was appended survives a power cut too."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_still_there(self) -> bool:
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def _cut_torn_line(descriptor: int) -> int:
    """Truncate the file behind its last newline; return the size that is left, in bytes."""
    end = os.fstat(descriptor).st_size
    keep = end
    while keep > 0:
        start = max(0, keep - TAIL_BYTES)
        newline = os.pread(descriptor, keep - start, start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep < end:
        os.ftruncate(descriptor, keep)
    return keep
