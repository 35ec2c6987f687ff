"""Small files by which a sweep and its jobs on other machines know of each other, in a folder that both see."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from hydra_plugins.winnow_sweeper._slurm import ask_to_stop
from winnow.sweep.outcome import Outcome

FOLDERS = ".jobs-*"
_SUBMITTED = ".submitted"


@dataclass(frozen=True)
class Notes:
    """By a job's key: ``submitted`` and ``stop`` are written by the sweep, ``started`` and ``ended`` by the job."""

    folder: Path

    def submit(self, key: str, slurm_name: str) -> None:
        """Note that a job is about to be submitted, with its name in SLURM's queue (empty elsewhere)."""
        (self.folder / f"{key}{_SUBMITTED}").write_text(slurm_name)

    def ask_to_stop(self, key: str) -> None:
        self._stop(key).touch()

    def start(self, key: str) -> bool:
        """Note where the job runs; whether it has been started before, by a cluster that starts lost jobs again."""
        path = self._started(key)
        was_started = path.exists()
        path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        return was_started

    def is_unstarted(self, key: str) -> bool:
        return not self._started(key).exists()

    def end(self, key: str, outcome: Outcome) -> None:
        if self.folder.exists():
            path = self.folder / f"{key}.ended"
            path.with_suffix(".ending").write_text(outcome.to_json())
            path.with_suffix(".ending").rename(path)

    def must_stop(self, key: str) -> bool:
        """Whether the sweep wants the job to end, or is gone itself."""
        return self._stop(key).exists() or not self.folder.exists()

    def outcome(self, key: str) -> Outcome | None:
        """What a job came to that ended already."""
        path = self.folder / f"{key}.ended"
        return Outcome.from_json(path.read_text()) if path.exists() else None

    def pid_here(self, key: str) -> int | None:
        """The job's process, where it runs on this machine."""
        try:
            note = json.loads(self._started(key).read_text())
        except (OSError, ValueError):
            return None
        return note["pid"] if note["host"] == socket.gethostname() else None

    def _started(self, key: str) -> Path:
        return self.folder / f"{key}.started"

    def _stop(self, key: str) -> Path:
        return self.folder / f"{key}.stop"


def recall(study_folder: Path, number: int) -> None:
    """Ask the jobs of trial ``number`` to save and end that a dead sweep left on a cluster, queued or running: its next job
    waits for that."""
    for submitted in study_folder.glob(f"{FOLDERS}/{number}[-_]*{_SUBMITTED}"):
        notes, key = Notes(submitted.parent), submitted.name.removesuffix(_SUBMITTED)
        if notes.outcome(key) is None and not notes.must_stop(key):
            notes.ask_to_stop(key)
            if slurm_name := submitted.read_text():
                ask_to_stop(slurm_name)
