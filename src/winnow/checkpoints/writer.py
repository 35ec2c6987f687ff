"""Writes checkpoints beside the training: a copy of the state is taken, then one thread brings it to disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from winnow.checkpoints.file import write_checkpoint
from winnow.checkpoints.host_copy import HostCopy, HostMemory

logger = logging.getLogger(__name__)

_NOTICEABLE_SECONDS = 1.0
# Half of what a queue usually grants between asking a run to stop and killing it.
_RECORD_SECONDS = 15.0

Recorded = Callable[[], bool]
"""Waits a while for the tracker's record to hold what was logged before the call; whether it does."""


class CheckpointWriter:
    """At most one write at a time, in a thread of its own; ``after`` is called there when a file is durable.

    A file that can't be written is an error in the log, and its name is written anew by the next save. Not so ``must_have``,
    which the next save may have no content for: that copy is kept, and tried again at each save and at the end.
    The thread is no daemon: a process that ends without ``close`` still waits for it.
    """

    def __init__(self, must_have: Path, after: Callable[[], None]) -> None:
        self._must_have = must_have
        self._after = after
        self._memory = HostMemory()
        self._thread: threading.Thread | None = None
        self._missed: HostCopy | None = None
        self._failure: Exception | None = None

    def save(self, content: dict[str, Any], paths: Sequence[Path], recorded: Recorded) -> None:
        """Copy ``content`` and return; it will be one file under each of ``paths``, which appear in this order.

        They appear only when ``recorded`` is true: a checkpoint must not know more than the tracker's record, which a resumed
        run only appends to. Waits for the write before this one. Raises what an earlier write died of, unless it was the disk's
        fault.
        """
        began = time.monotonic()
        self.wait()
        waited = time.monotonic() - began
        if waited > _NOTICEABLE_SECONDS:
            logger.warning(
                "training waited %.1f s for the checkpoint before: saves come faster than they are written", waited
            )
        try:
            copy = self._memory.copy(content)
        except (OSError, RuntimeError, MemoryError) as error:
            logger.warning("no memory to copy the state to (%s): training waits until it is written", error)
            copy = HostCopy(content, None)
            self._write(copy, paths, recorded)
            return
        self._start(lambda: self._write(copy, paths, recorded))

    def make_room(self, content: dict[str, Any]) -> None:
        """Get the memory for copies of ``content`` ready in the background, so that the first save is no slower than others."""
        self.wait()
        try:
            self._start(self._memory.room_for(content))
        except (OSError, RuntimeError, MemoryError) as error:
            logger.warning("no memory to copy the state to (%s): training will wait for its saves", error)

    def hold_still(self, tensors: Iterable[Tensor]) -> None:
        """Copy these ``tensors`` once for all saves: they don't change."""
        self.wait()
        self._memory.hold_still(tensors)

    def wait(self) -> None:
        """Wait until nothing is being written; raises what the write died of, unless it was the disk's fault."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Wait, try once more what is missing, and give the memory back."""
        self.wait()
        missed, self._missed = self._missed, None
        if missed is not None:
            self._attempt(missed, [self._must_have])
        if self._missed is not None:
            self._missed = None
            logger.error("%s is not what the run's best was: it could not be written to the end", self._must_have)
        self.wait()
        self._memory = HostMemory()

    def _start(self, act: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(act,), name="checkpoint writer")
        self._thread.start()

    def _run(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            logger.exception("the checkpoint writer died, and with it this save")
            self._failure = error

    def _write(self, copy: HostCopy, paths: Sequence[Path], recorded: Recorded) -> None:
        _wait_for(recorded)
        missed, self._missed = self._missed, None
        if missed is not None and self._must_have not in paths:
            self._attempt(missed, [self._must_have])
        self._attempt(copy, paths)

    def _attempt(self, copy: HostCopy, paths: Sequence[Path]) -> None:
        # A full disk must not end a night's training: the files before are intact, and the next save tries again.
        names = ", ".join(path.name for path in paths)
        try:
            copy.wait()
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(paths[-1], copy.content, before=paths[:-1])
            self._after()
        except (OSError, RuntimeError) as error:
            folder = paths[-1].parent
            logger.error(
                "%s in %s NOT saved, training goes on and tries again at the next save: %s", names, folder, error
            )
            if self._must_have in paths and copy.memory is not None:
                self._missed = copy
                self._memory.give_away(copy)


def _wait_for(recorded: Recorded) -> None:
    # A record that its disk refuses for good must not cost the weights as well.
    deadline = time.monotonic() + _RECORD_SECONDS
    while not recorded():
        if time.monotonic() > deadline:
            logger.warning(
                "saving before the tracker's record is on disk: killed before it is, a resumed run lacks these numbers"
            )
            return
        time.sleep(0.05)
