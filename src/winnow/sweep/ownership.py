"""Who answers for a running trial, and whether he is alive: stamps of processes, and heartbeats where a process can't be seen."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil

HEARTBEAT = "winnow:heartbeat:"
"""Begins the study attributes that count an owner's heartbeats; the rest of the name is his ``Owner.id``."""


class Liveness(enum.Enum):
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Owner:
    """A process. ``start_time`` tells it from a later one of the same ``pid``; a pid counts within one boot and PID namespace."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_time: str

    @classmethod
    def this_process(cls) -> Self:
        host, boot_id, pid_namespace = _place()
        return cls(host, boot_id, pid_namespace, os.getpid(), process_start(os.getpid()) or "")

    @property
    def id(self) -> str:
        return f"{self.host[:40]}-{self.pid}-{hashlib.sha256(self.to_json().encode()).hexdigest()[:12]}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError if ``text`` is no stamp."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"no owner's stamp: {text!r}") from error


def liveness(owner: Owner, heartbeats: Heartbeats) -> Liveness:
    """Looked up where this process can see ``owner``'s, else judged by ``heartbeats``.

    Nothing follows from equal host names alone (a reboot, a second container), so those are judged by heartbeats too.
    """
    if (owner.host, owner.boot_id, owner.pid_namespace) != _place():
        return heartbeats.liveness(owner.id)
    try:
        is_same = process_start(owner.pid) == owner.start_time
    except PermissionError:  # it exists, but this user may not look at it
        return heartbeats.liveness(owner.id)
    return Liveness.ALIVE if is_same else Liveness.DEAD


class Heartbeats:
    """Judges owners by whether their counters change while we watch, on our own monotonic clock: no two clocks are compared.

    An owner is dead whose counter stood still for ``observation_seconds`` of watching. A long gap between two looks (this
    process was stopped, the storage was away) counts for a fifth of that at most: the cause may have stopped the owner too.
    """

    def __init__(self, observation_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._observation_seconds = observation_seconds
        self._clock = clock
        self._last_look: float | None = None
        self._pulses: dict[str, _Pulse] = {}

    def look(self, study_attributes: Mapping[str, Any]) -> None:
        now = self._clock()
        gap = 0.0 if self._last_look is None else min(now - self._last_look, self._observation_seconds / 5)
        self._last_look = now
        counts = {name.removeprefix(HEARTBEAT): n for name, n in study_attributes.items() if name.startswith(HEARTBEAT)}
        for owner_id, pulse in self._pulses.items():
            pulse.look(counts.get(owner_id), gap)
        for owner_id in counts.keys() - self._pulses.keys():
            self._pulses[owner_id] = _Pulse(counts[owner_id])

    def liveness(self, owner_id: str) -> Liveness:
        """Unknown until a counter changed, or stood still for long enough; an owner without one is watched from now on."""
        pulse = self._pulses.setdefault(owner_id, _Pulse(None))
        if pulse.still_seconds >= self._observation_seconds:
            return Liveness.DEAD
        return Liveness.ALIVE if pulse.has_changed else Liveness.UNKNOWN


@dataclass
class _Pulse:
    count: Any
    still_seconds: float = 0.0
    has_changed: bool = False

    def look(self, count: Any, gap_seconds: float) -> None:
        if count == self.count:
            self.still_seconds += gap_seconds
        else:
            self.count, self.still_seconds, self.has_changed = count, 0.0, True


def process_start(pid: int) -> str | None:
    """When process ``pid`` began: clock ticks since boot on Linux, elsewhere seconds of its clock; None where none runs.

    Raises PermissionError if one runs that this user may not look at. A zombie does not run.
    """
    if not sys.platform.startswith("linux"):
        return _process_start_elsewhere(pid)
    try:
        # Field 22 of proc(5); the second one, the program's name in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        _raise_if_hidden(pid)
        return None
    return None if fields[0] in b"ZXx" else fields[19].decode()


def _raise_if_hidden(pid: int) -> None:
    try:
        os.kill(pid, 0)  # sends nothing; raises PermissionError for a process of somebody else's
    except ProcessLookupError:
        return
    if not Path(f"/proc/{pid}").exists():
        raise PermissionError(f"process {pid} is hidden in /proc")


def _process_start_elsewhere(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise PermissionError(str(error)) from error


@cache
def _place() -> tuple[str, str, str]:
    """Host name, boot and PID namespace: within one such place a PID means the same process."""
    boot_id, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot_id.exists():
        # Another start of the same machine is told by the process's start time.
        return socket.gethostname(), f"{uuid.getnode():x}", ""
    return socket.gethostname(), boot_id.read_text().strip(), os.readlink(namespace) if namespace.exists() else ""
