"""A trial's task as a Hydra launcher gets it: it travels to wherever the job runs, and listens there for a request to stop."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hydra_plugins.winnow_sweeper._interrupts import Interrupts
from hydra_plugins.winnow_sweeper._output import output_to
from hydra_plugins.winnow_sweeper._single_run import TrialTask, interrupted
from winnow.sweep.outcome import Outcome

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Notes:
    """Two files per job in a folder that the sweep and its jobs share: ``started`` by the job, ``stop`` by the sweep."""

    folder: Path

    def started(self, name: str) -> Path:
        return self.folder / f"{name}.started"

    def stop(self, name: str) -> Path:
        return self.folder / f"{name}.stop"

    def pid_here(self, name: str) -> int | None:
        """The job's process, where it runs on this machine."""
        try:
            note = json.loads(self.started(name).read_text())
        except (OSError, ValueError):
            return None
        return note["pid"] if note["host"] == socket.gethostname() else None


@dataclass(frozen=True)
class ClusterTask:
    """``task`` for the job ``name``, with ``environment`` set first, before anything looks for a GPU."""

    task: TrialTask
    notes: Notes
    name: str
    environment: dict[str, str]
    sweep_pid: int
    allows_in_process: bool

    def __call__(self, config: DictConfig) -> Outcome:
        if os.getpid() == self.sweep_pid and not self.allows_in_process:
            launcher = HydraConfig.get().launcher["_target_"]
            raise RuntimeError(
                f"{launcher} runs jobs inside the sweep's own process, several at once would mix: n_jobs=1"
            )
        os.environ.update(self.environment)
        if self.notes.stop(self.name).exists():
            return interrupted("asked to stop before the run began")
        if os.getpid() == self.sweep_pid:
            return self.task(config)
        with output_to(Path(HydraConfig.get().runtime.output_dir) / "output.log"), self._listening():
            return self.task(config)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Obey the stop note; only where this is a main thread, since no other can be interrupted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.notes.started(self.name).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        is_over = threading.Event()
        interrupts = Interrupts()
        with interrupts.during(self.name):
            threading.Thread(target=self._look, args=(interrupts, is_over), daemon=True).start()
            try:
                yield
            finally:
                is_over.set()

    def _look(self, interrupts: Interrupts, is_over: threading.Event) -> None:
        while not is_over.wait(_LOOK_SECONDS):
            if self.notes.stop(self.name).exists():
                interrupts.request(self.name)
                return
