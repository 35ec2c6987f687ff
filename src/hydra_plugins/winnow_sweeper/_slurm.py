"""SLURM's queue as a sweep sees it: which of its jobs left without a result, and how they are told to stop. Jobs go by name."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterable

logger = logging.getLogger(__name__)

LOOK_SECONDS, HURRIED_LOOK_SECONDS = 15.0, 2.0
RESULT_SECONDS, HURRIED_RESULT_SECONDS = 20.0, 3.0
_GONE = "it left the queue"
_UNDER_WAY = {
    "CONFIGURING", "COMPLETING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "RESV_DEL_HOLD", "RUNNING",
    "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED",
}  # fmt: skip


class SlurmQueue:
    """The jobs whose names begin with ``prefix``.

    submitit asks the accounting database whether a job ended, at last every ten minutes, and waits for ever where a cluster has
    none; the queue itself knows at once.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._next_look = 0.0
        self._seen: set[str] = set()
        self._ended: dict[str, tuple[float, str]] = {}

    def lost(self, names: set[str], is_in_hurry: bool) -> dict[str, str]:
        """Return those of ``names`` that ended a while ago by what the queue says, each with SLURM's word for it. Their
        results would have come by now.
        """
        now = time.monotonic()
        if not names or now < self._next_look:
            return {}
        self._next_look = now + (HURRIED_LOOK_SECONDS if is_in_hurry else LOOK_SECONDS)
        states = self._states(names)
        if states is None:
            return {}
        self._seen |= states.keys()
        for name in names & self._seen:
            state = states.get(name, _GONE)
            if state in _UNDER_WAY:
                self._ended.pop(name, None)
            else:
                self._ended.setdefault(name, (now, state))
        patience = HURRIED_RESULT_SECONDS if is_in_hurry else RESULT_SECONDS
        return {
            name: state for name, (since, state) in self._ended.items() if name in names and now - since >= patience
        }

    def cancel_rest(self, answered: set[str]) -> None:
        """Cancel whatever of ours is in the queue still: a job that was being submitted, one that SLURM requeued. Those that
        have ``answered`` and run still are about to end."""
        listed = _run("squeue", "--me", "--noheader", "--format=%j|%T")
        for name, state in (line.split("|", 1) for line in (listed or "").split()):
            if name.startswith(self._prefix) and (state == "PENDING" or name not in answered):
                cancel(name)

    def _states(self, names: Iterable[str]) -> dict[str, str] | None:
        """Return the jobs' states; None if SLURM does not answer. Jobs that ended stay listed for some minutes."""
        command = ["--noheader", "--states=all", "--format=%j|%T", f"--name={','.join(sorted(names))}"]
        listed = _run("squeue", *command)
        return None if listed is None else dict(line.split("|", 1) for line in listed.split())


def ask_to_stop(name: str) -> None:
    """Ask the jobs ``name`` to stop: one that waits in the queue is cancelled; one that runs saves and ends."""
    _run("scancel", "--state=PENDING", f"--name={name}")
    _run("scancel", "--signal=USR1", f"--name={name}")


def cancel(name: str, at_once: bool = False) -> None:
    if at_once:
        _run("scancel", "--signal=KILL", f"--name={name}")
    _run("scancel", f"--name={name}")


def _run(*command: str) -> str | None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s: %s", " ".join(command), error)
        return None
    if ended.returncode:
        logger.warning("%s: %s", " ".join(command), ended.stderr.strip())
        return None
    return ended.stdout
