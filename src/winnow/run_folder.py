"""Run folders: names that several parts must agree on, and who may write: one run at a time, never over another one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

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
        write_whole(owner, ProcessStamp.this_process().to_json())
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
    """Raise ConfigError if ``folder`` holds what an earlier run left: a new run would write over it."""
    left = [name for name in ("checkpoints", "tracking", PIPELINE_RECORD) if (folder / name).exists()]
    if left:
        raise ConfigError(
            f"{folder} already holds a run ({', '.join(left)}); go on with it by training.resume=auto, or choose another "
            "hydra.run.dir"
        )


class MadeFolders:
    """``folder`` and what was missing above it, made by this command, which removes them again where it is refused before it has
    begun; what was there before stays. As a context: where an error ends it before ``keep()``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._made: list[Path] = []  # outermost first

    def make(self) -> None:
        """Make what is missing. Raises OSError, and remembers what it had made by then."""
        for path in reversed([self._folder, *self._folder.parents]):
            if path.is_dir():
                continue
            try:
                path.mkdir()
            except FileExistsError:  # another process was faster: then it is not ours
                if not path.is_dir():
                    raise
            else:
                self._made.append(path)

    def keep(self) -> None:
        """Leave everything where it is from now on."""
        self._made = []

    def remove(self) -> None:
        """Remove what this command made; not where another process has begun a run there meanwhile."""
        made, self._made = self._made, []
        if self._folder in made and not _is_held(self._folder):
            shutil.rmtree(self._folder, ignore_errors=True)
        for path in reversed(made):
            with contextlib.suppress(OSError):  # somebody else's things lie in it, or it is gone
                path.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            self.remove()


def _is_held(folder: Path) -> bool:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except (OSError, Timeout):
        return True
    lock.release()
    return False


def write_whole(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Write ``path`` so that readers, a kill and a power cut find the old content or the whole new one, never a part. Raises
    OSError, and leaves the old file as it was then."""
    with whole_file(path, mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Give a file that becomes ``path``, synced to disk, when the context ends; it is removed if that ends by an error. It
    lies beside ``path`` until then. Raises OSError."""
    unfinished = unfinished_name(path)
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def unfinished_name(path: Path) -> Path:
    """Return a name beside ``path`` that no other writer has, for what becomes ``path`` when it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def sync_folder(folder: Path) -> None:
    """Sync the names in ``folder`` to disk: without it a power cut may undo a rename. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
