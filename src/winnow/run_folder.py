"""Run folders: names that several parts must agree on, and who may write: one run at a time, never over another one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from winnow.errors import ConfigError

PIPELINE_RECORD = "pipeline.yaml"
"""Where a run folder holds a folder per stage: what the stages began with."""


@contextlib.contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; ConfigError where a run that is still going on holds it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder} belongs to a run that is still going on; choose another hydra.run.dir") from None
    try:
        yield
    finally:
        lock.release()


def require_unused(folder: Path) -> None:
    """ConfigError where ``folder`` holds what an earlier run left: a new run would write over it."""
    left = [name for name in ("checkpoints", "tracking", PIPELINE_RECORD) if (folder / name).exists()]
    if left:
        raise ConfigError(
            f"{folder} already holds a run ({', '.join(left)}); go on with it by training.resume=auto, or choose another "
            "hydra.run.dir"
        )
