"""One job of a sweep: what goes to a slot, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from winnow.sweep.outcome import Outcome

CLOSING_SECONDS = 30.0
"""What jobs that run get to save when their slots are closed."""
MAX_FAILED_STARTS = 3
"""So many processes in a row that end before they start a job are the sweep's end."""


@dataclass(frozen=True)
class Job:
    """One run: trial ``number`` (which is Hydra's job number), with the ``overrides`` of its config, in the folder ``subdir``
    of the study; ``seed`` where the trial is run with several."""

    number: int
    overrides: tuple[str, ...]
    subdir: str
    seed: int | None = None
    attempt: int = 0

    @property
    def name(self) -> str:
        return str(self.number) if self.seed is None else f"{self.number}_seed_{self.seed}"


@dataclass(frozen=True)
class Finished:
    """A job that left its slot: with an ``outcome``, or by a ``death`` (``killed by SIGKILL``, ``exit code 3``)."""

    job: Job
    outcome: Outcome | None = None
    death: str | None = None


class Slots(Protocol):
    """Where jobs run, ``size`` at a time."""

    size: int

    def num_free(self) -> int: ...

    def submit(self, job: Job) -> None:
        """Start ``job`` in a free slot. Raises ValueError if there is none."""
        ...

    def wait(self, seconds: float) -> list[Finished]:
        """Return the jobs that ended since the last call; wait for the first up to ``seconds``."""
        ...

    def interrupt(self, numbers: set[int] | None = None) -> None:
        """Ask running jobs (of these trials, or all) to save and end; they come back as ``interrupted``."""
        ...

    def close(self, at_once: bool = False) -> None:
        """Leave no process, cluster job or lease behind; ``at_once`` without waiting for anybody."""
        ...


def require_free(slots: Slots, job: Job) -> None:
    """Raise ValueError if no slot is free for ``job``."""
    if slots.num_free() < 1:
        raise ValueError(f"job {job.name}: all slots are taken, of {slots.size}")
