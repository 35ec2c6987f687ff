"""GPU leases: one trial per device, over all sweeps of a user on this machine. Never initialises CUDA in the sweep's process."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from winnow.errors import ConfigError

logger = logging.getLogger(__name__)

VARIABLE = "CUDA_VISIBLE_DEVICES"
_LOOK_SECONDS = 2.0

Devices = Literal["auto"] | Sequence[int | str] | None


class Lease:
    """A device that is ours until ``release``, or until the last process that holds ``fd`` has died: the lock is the kernel's.

    ``device`` is what CUDA_VISIBLE_DEVICES gets.
    """

    def __init__(self, device: str, fd: int) -> None:
        self.device = device
        self.fd = fd

    @property
    def environment(self) -> dict[str, str]:
        return {VARIABLE: self.device}

    def release(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class DevicesTakenError(ConfigError):
    """Other sweeps hold the devices that this one needs."""


def await_devices(
    devices: Devices, num_slots: int, folder: Path | None = None, environment: Mapping[str, str] = os.environ
) -> list[Lease] | None:
    """Lease as ``lease_devices`` does; where other sweeps hold what is needed, say so once and wait until it is free."""
    shown = ""
    while True:
        try:
            return lease_devices(devices, num_slots, folder, environment)
        except DevicesTakenError as error:
            if str(error) != shown:
                shown = str(error)
                logger.warning("waiting: %s", shown)
            time.sleep(_LOOK_SECONDS)


def lease_devices(
    devices: Devices, num_slots: int, folder: Path | None = None, environment: Mapping[str, str] = os.environ
) -> list[Lease] | None:
    """Lease one device per slot: of those named (numbers as torch counts them here, or UUIDs), or of all visible ones
    (auto).

    Return None if none are wanted, or ``auto`` finds none. Raises ConfigError if there are too few, DevicesTakenError if too
    few are free.
    """
    candidates = wanted_devices(devices, num_slots, environment)
    if candidates is None:
        return None
    folder = folder or lock_folder()
    leases: list[Lease] = []
    holders: list[str] = []
    for device in candidates:
        if len(leases) < num_slots:
            lock = _lock(device, folder)
            if isinstance(lock, int):
                leases.append(Lease(device, lock))
            else:
                holders.append(f"{device} ({lock})")
    if len(leases) < num_slots:
        num_free = len(leases)
        for lease in leases:
            lease.release()
        raise DevicesTakenError(
            f"hydra.sweeper.n_jobs={num_slots}, but only {num_free} of the devices {', '.join(candidates)} are free, "
            f"other sweeps hold {', '.join(holders)}: wait for them, or set "
            + (f"hydra.sweeper.n_jobs={num_free}, or " if num_free else "")
            + "hydra.sweeper.devices=null to share devices"
        )
    return leases


def wanted_devices(devices: Devices, num_slots: int, environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """Return the devices that ``lease_devices`` chooses from, None if it leases none. Raises ConfigError if there are too
    few."""
    if devices is None:
        return None
    candidates = visible_devices(environment) if devices == "auto" else _named(devices, environment)
    if not candidates and devices == "auto":
        return None
    _require_enough(devices, candidates, num_slots)
    return candidates


def visible_devices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the devices a CUDA process would see with this environment, as UUIDs where ``nvidia-smi`` tells them."""
    installed = _installed_devices()
    if VARIABLE not in environment:
        return [uuid for uuids in installed.values() for uuid in uuids] or _counted_by_torch()
    tokens: list[str] = []
    for token in environment[VARIABLE].split(","):
        if not token.strip() or token.strip().startswith("-"):
            break  # CUDA stops reading at the first that is no device
        tokens.append(token.strip())
    return [_identity(token, installed) for token in tokens]


def lock_folder() -> Path:
    """Return the one folder that every login, cron job and container of this machine's user shares; only ours to write."""
    folder = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir(), f"winnow-{os.getuid()}", "devices")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.parent.stat().st_uid != os.getuid():
        raise ConfigError(
            f"{folder.parent} belongs to another user, so devices can't be leased: hydra.sweeper.devices=null"
        )
    return folder


def _named(devices: Sequence[int | str], environment: Mapping[str, str]) -> list[str]:
    names = [str(device) for device in devices]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"hydra.sweeper.devices={names} must name different devices, as [0,1], or be auto or null")
    installed = _installed_devices()
    if VARIABLE not in environment:
        known = [uuid for uuids in installed.values() for uuid in uuids]
    else:
        known = visible_devices(environment)
    found = [known[int(name)] if name.isdigit() and int(name) < len(known) else name for name in names]
    unknown = [name for name in found if known and _identity(name, installed) not in known]
    if unknown:
        raise ConfigError(
            f"hydra.sweeper.devices={names}: {', '.join(unknown)} is not there; visible: {', '.join(known)}"
        )
    return [_identity(name, installed) for name in found]


def _require_enough(devices: Devices, candidates: list[str], num_slots: int) -> None:
    if len(candidates) < num_slots:
        asked = "auto" if devices == "auto" else f"[{','.join(str(device) for device in devices or ())}]"
        raise ConfigError(
            f"hydra.sweeper.n_jobs={num_slots} needs as many devices, and hydra.sweeper.devices={asked} gives "
            f"{len(candidates)} ({', '.join(candidates)}): set hydra.sweeper.n_jobs={len(candidates)}, "
            "or hydra.sweeper.devices=null to share devices"
        )


def _lock(device: str, folder: Path) -> int | str:
    """Return the descriptor that holds the lock, or who holds it."""
    path = folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', device)}.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 100, 0).decode(errors="replace").strip()
        os.close(fd)
        return holder or "holder unknown"
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"process {os.getpid()}".encode(), 0)
    return fd


def _installed_devices() -> dict[str, list[str]]:
    """Return GPU number → its UUID, or those of its MIG parts: a process can use one part only, and the whole not at all."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    try:
        listing = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parse_listing(listing)


def parse_listing(listing: str) -> dict[str, list[str]]:
    devices: dict[str, list[str]] = {}
    whole = {}
    number = ""
    for line in listing.splitlines():
        if gpu := re.match(r"GPU (\d+):.*\(UUID: (GPU-[^)]+)\)", line):
            number = gpu[1]
            whole[number] = gpu[2]
            devices[number] = []
        elif part := re.search(r"\(UUID: (MIG-[^)]+)\)", line):
            devices[number].append(part[1])
    return {number: parts or [whole[number]] for number, parts in devices.items()}


def _identity(token: str, installed: dict[str, list[str]]) -> str:
    """Return one name per device, so that a sweep that says 0 and one that says its UUID mean the same lock."""
    if len(installed.get(token, [])) == 1:
        return installed[token][0]
    full = [uuid for uuids in installed.values() for uuid in uuids if uuid.startswith(token) and not token.isdigit()]
    return full[0] if len(full) == 1 else token  # CUDA takes the beginning of a UUID, too


def _counted_by_torch() -> list[str]:
    """Count devices where there is a driver but no ``nvidia-smi`` (containers); torch counts by NVML, without
    initialising CUDA.
    """
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        return []
    import torch  # two seconds, spent only where a GPU is known to be there

    return [str(number) for number in range(torch.cuda.device_count())]
