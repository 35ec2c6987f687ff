"""Which process this is, told apart from every other one on this and other machines, and whether such a process still runs."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import uuid
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Self

from winnow.reading import UnreadableError, parse_json


@dataclass(frozen=True)
class ProcessStamp:
    """A process. ``start_time`` tells it from a later one of the same ``pid``; a pid counts within one boot and PID namespace.

    No correction of the clock moves any of it on Linux.
    """

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_time: str

    @classmethod
    def this_process(cls) -> Self:
        """Return the stamp of the process that calls."""
        host, boot_id, pid_namespace = _place()
        return cls(host, boot_id, pid_namespace, os.getpid(), process_start(os.getpid()) or "")

    @property
    def id(self) -> str:
        return f"{self.host[:40]}-{self.pid}-{hashlib.sha256(self.to_json().encode()).hexdigest()[:12]}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what ``to_json`` wrote. Raises ValueError if ``text`` is no stamp."""
        try:
            fields = parse_json(text)
            stamp = cls(**fields)
        except (TypeError, UnreadableError) as error:
            raise ValueError(f"no stamp of a process: {text!r:.100}") from error
        if not all(type(value) is (int if name == "pid" else str) for name, value in fields.items()):
            raise ValueError(f"no stamp of a process: {text!r:.100}")
        return stamp

    def is_alive(self) -> bool | None:
        """Return whether the process runs; None where it can't be seen from this one.

        Nothing follows from equal host names alone: a reboot, or a second container.
        """
        if (self.host, self.boot_id, self.pid_namespace) != _place():
            return None
        try:
            return process_start(self.pid) == self.start_time
        except PermissionError:  # it exists, but this user may not look at it
            return None


def process_start(pid: int) -> str | None:
    """Return when process ``pid`` began: clock ticks since boot on Linux, elsewhere seconds of its clock; None where none runs.

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
    import psutil  # Linux needs none, and Hydra imports this module with each plugin

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise PermissionError(str(error)) from error


@cache
def _place() -> tuple[str, str, str]:
    """Return host name, boot and PID namespace: within one such place a PID means the same process."""
    boot_id, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot_id.exists():
        # Another start of the same machine is told by the process's start time.
        return socket.gethostname(), f"{uuid.getnode():x}", ""
    return socket.gethostname(), boot_id.read_text().strip(), os.readlink(namespace) if namespace.exists() else ""
