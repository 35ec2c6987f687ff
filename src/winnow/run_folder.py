"""Run folders: names that several parts must agree on, and who may write: one run at a time, never over another one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from winnow.errors import ConfigError
from winnow.process import ProcessStamp

PIPELINE_RECORD = "pipeline.yaml"
"""Where a run folder holds a folder per stage: what the stages began with."""


@contextlib.contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process. Raises ConfigError, which says who does, if a run that is still going on holds it."""
    lock, owner = FileLock(folder / ".lock"), folder / ".owner.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder} belongs to a run that is still going on{_who(owner)}; choose another hydra.run.dir"
        ) from None
    try:
        owner.write_text(ProcessStamp.this_process().to_json())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _who(owner: Path) -> str:
    try:
        stamp, since = ProcessStamp.from_json(owner.read_text()), time.localtime(owner.stat().st_mtime)
    except (OSError, ValueError):  # it has only just begun
        return ""
    return f" (process {stamp.pid} on {stamp.host} since {time.strftime('%Y-%m-%d %H:%M', since)})"


def require_unused(folder: Path) -> None:
    """ConfigError where ``folder`` holds what an earlier run left: a new run would write over it."""
    left = [name for name in ("checkpoints", "tracking", PIPELINE_RECORD) if (folder / name).exists()]
    if left:
        raise ConfigError(
            f"{folder} already holds a run ({', '.join(left)}); go on with it by training.resume=auto, or choose another "
            "hydra.run.dir"
        )
