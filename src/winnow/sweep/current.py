"""The trial that the run in this process belongs to. Knows no Optuna, so that a run outside of a sweep never imports it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from winnow.protocols import Trial


@dataclass(frozen=True)
class CurrentTrial:
    """``trial`` listens; ``number`` is its own in the study named ``study``, whose folder is ``study_folder``. ``seed`` tells the
    runs of one configuration apart, the number of a ``repeated`` thing: seed, fold. ``searched`` are the
    keys, of groups too, that the study gives values to."""

    trial: Trial
    number: int
    study: str
    study_folder: Path
    seed: int | None = None
    repeated: str = "seed"
    searched: tuple[str, ...] = ()


_current: list[CurrentTrial] = []


@contextlib.contextmanager
def running(current: CurrentTrial) -> Iterator[None]:
    """Make the run inside this context the ``current`` one."""
    _current.append(current)
    try:
        yield
    finally:
        _current.pop()


def current_trial() -> CurrentTrial | None:
    """Return the trial of the current run; None outside of a sweep."""
    return _current[-1] if _current else None
