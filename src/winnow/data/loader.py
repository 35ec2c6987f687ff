"""The loader behind a plan of batches: survives the death of a worker process and a folder that is gone for a while."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from winnow.data.plan import BatchPlan
from winnow.errors import DataError, TransientDataError

logger = logging.getLogger(__name__)

# Of worker processes, since the last pass that came to its end.
MAX_DEATHS = 3
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid")


class NothingReadable(NamedTuple):
    """Stands for a batch without a readable image."""

    problems: tuple[str, ...]


class FolderGone(NamedTuple):
    """Stands for a batch that was to be read from a folder that is gone."""

    folder: str


class BatchLoader:
    """The batches of ``plan``, whatever it is set to when iteration begins.

    What can't be read now but may be later raises TransientDataError: then iterate again, from the first batch not seen.
    ``patience_seconds`` is how long that is worth trying for a folder that is gone.
    """

    def __init__(
        self,
        samples: Dataset[Any],
        plan: BatchPlan,
        collate: Callable[[Any], Any],
        num_workers: int,
        patience_seconds: float,
    ) -> None:
        self._samples = samples
        self._plan = plan
        self._collate = collate
        self._num_workers = num_workers
        self._patience_seconds = patience_seconds
        self._deaths = 0
        self._loader = self._new_loader()

    def __iter__(self) -> Iterator[Any]:
        try:
            with _child_deaths_ignored():
                iterator = iter(self._loader)
            for batch in iterator:
                yield require_batch(batch, self._patience_seconds)
        except (RuntimeError, OSError, EOFError) as error:
            if not _is_death(error):
                raise
            self._note_death(error)
        self._deaths = 0

    def _note_death(self, error: Exception) -> None:
        self._deaths += 1
        self._loader = self._new_loader()
        words = f"a data loading process was killed ({error})"
        if self._deaths > MAX_DEATHS:
            raise DataError(
                f"{words}, the {self._deaths}th within one pass over the data; most often memory has run out: lower "
                f"training.num_workers={self._num_workers} or training.batch_size, or give /dev/shm more room"
            ) from error
        raise TransientDataError(f"{words}, no. {self._deaths} of {MAX_DEATHS}", lambda: True, 0.0) from error

    def _new_loader(self) -> DataLoader[Any]:
        return DataLoader(
            self._samples,
            batch_sampler=self._plan,
            num_workers=self._num_workers,
            collate_fn=self._collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self._num_workers > 0,
            # Without a generator of its own the loader draws from torch's global one whenever it starts an epoch.
            generator=torch.Generator(),
        )


def require_batch(loaded: Any, patience_seconds: float) -> Any:
    """Return ``loaded`` if it is a batch. Raises the DataError or TransientDataError that stands for one otherwise."""
    if isinstance(loaded, FolderGone):
        folder = Path(loaded.folder)
        raise TransientDataError(
            f"the image folder {folder} is gone or empty (data.wait_for_files_seconds={patience_seconds:g})",
            lambda: not is_gone(folder),
            patience_seconds,
        )
    if isinstance(loaded, NothingReadable):
        raise DataError(f"no image of the batch can be read: {'; '.join(loaded.problems)}")
    return loaded


def is_gone(folder: Path) -> bool:
    """Return whether a folder can't be listed or is empty, as the mount point of a share that is away."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (OSError, ValueError):
        return True


def _is_death(error: Exception) -> bool:
    """Return whether a worker process died. One that is still dying is seen by its closed sockets only; what its own
    code raises comes with a message that begins with "Caught".
    """
    if isinstance(error, ConnectionError | FileNotFoundError | EOFError):
        return not str(error).startswith("Caught")
    return isinstance(error, RuntimeError) and _DEAD_WORKER.search(str(error)) is not None


@contextlib.contextmanager
def _child_deaths_ignored() -> Iterator[None]:
    """Undo the signal handler that torch installs with its first worker: it raises in the middle of whatever the main thread
    does when a worker dies, an optimizer step too. The loader notices a death by itself when it waits for the next batch."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGCHLD, before)
