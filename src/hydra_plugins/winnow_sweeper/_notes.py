"""Small files by which a sweep and its jobs on other machines know of each other, in a folder that both see."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hydra_plugins.winnow_sweeper._slurm import ask_to_stop
from winnow.process import ProcessStamp
from winnow.reading import UnreadableError, parse_json
from winnow.run_folder import write_whole
from winnow.sweep.outcome import Outcome
from winnow.sweep.ownership import Heartbeats, Liveness, liveness

logger = logging.getLogger(__name__)

_PREFIX = ".jobs-"
_SUBMITTED = ".submitted"
_OWNER = "owner.json"


@dataclass(frozen=True)
class Notes:
    """By a job's key: ``submitted`` and ``stop`` are written by the sweep, ``started`` and ``ended`` by the job."""

    folder: Path

    @classmethod
    def new(cls, study_folder: Path) -> Notes:
        """Make the notes for a sweep of this process, in a folder of their own."""
        notes = cls(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=study_folder)))
        (notes.folder / _OWNER).write_text(ProcessStamp.this_process().to_json())
        return notes

    def submit(self, key: str, slurm_name: str) -> None:
        """Note that a job is about to be submitted, with its name in SLURM's queue (empty elsewhere)."""
        write_whole(self.folder / f"{key}{_SUBMITTED}", slurm_name)

    def ask_to_stop(self, key: str) -> None:
        try:
            self._stop(key).touch()
        except OSError as error:
            logger.warning("job %s was not asked to stop: %s", key, error)

    def start(self, key: str) -> bool:
        """Note where the job runs; return whether it has been started before, by a cluster that starts lost jobs again."""
        path = self._started(key)
        was_started = path.exists()
        write_whole(path, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        return was_started

    def is_unstarted(self, key: str) -> bool:
        return not self._started(key).exists()

    def end(self, key: str, outcome: Outcome) -> None:
        path = self.folder / f"{key}.ended"
        try:
            write_whole(path, outcome.to_json())
        except FileNotFoundError:  # the sweep is gone, and with it its folder
            return
        except OSError as error:  # the launcher has its own way to tell
            logger.warning("the end of job %s was not noted: %s", key, error)

    def must_stop(self, key: str) -> bool:
        """Return whether the sweep wants the job to end, or is gone itself."""
        return self._stop(key).exists() or not self.folder.exists()

    def outcome(self, key: str) -> Outcome | None:
        """Return what a job that ended already came to; None if it has not ended, or its note is damaged, as by a power cut."""
        path = self.folder / f"{key}.ended"
        try:
            return Outcome.from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except UnreadableError as error:
            logger.error("%s is damaged and counts as absent: %s", path, error)
            return None

    def pid_here(self, key: str) -> int | None:
        """Return the job's process, if it runs on this machine."""
        try:
            note = parse_json(self._started(key).read_bytes())
            return int(note["pid"]) if note["host"] == socket.gethostname() else None
        except (OSError, LookupError, TypeError, ValueError):
            return None

    def _started(self, key: str) -> Path:
        return self.folder / f"{key}.started"

    def _stop(self, key: str) -> Path:
        return self.folder / f"{key}.stop"


def recall(study_folder: Path, number: int) -> None:
    """Ask the jobs of trial ``number`` to save and end that a dead sweep left on a cluster, queued or running: its next job
    waits for that."""
    for submitted in study_folder.glob(f"{_PREFIX}*/{number}[-_]*{_SUBMITTED}"):
        _recall(submitted)


def clear_up(study_folder: Path) -> None:
    """Recall all jobs of sweeps that died on this machine, and remove their notes. Those of other machines stay: whether their
    sweeps live can't be seen from here."""
    never = Heartbeats(math.inf)
    for folder in study_folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):  # one that somebody else is making, or removing
            if liveness(ProcessStamp.from_json((folder / _OWNER).read_text()), never) == Liveness.DEAD:
                for submitted in folder.glob(f"*{_SUBMITTED}"):
                    _recall(submitted)
                shutil.rmtree(folder)


def _recall(submitted: Path) -> None:
    notes, key = Notes(submitted.parent), submitted.name.removesuffix(_SUBMITTED)
    if notes.outcome(key) is None and not notes.must_stop(key):
        notes.ask_to_stop(key)
        if slurm_name := submitted.read_text():
            ask_to_stop(slurm_name)
