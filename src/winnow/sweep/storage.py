"""Opens the storage of a study by its URL, and creates a study once however many processes begin it at the same moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection

from winnow.errors import ConfigError
from winnow.sweep.address import parse_storage_url
from winnow.sweep.patient import PatientStorage

PATIENCE_SECONDS = 600.0


def open_storage(
    url: str, *, patience_seconds: float = PATIENCE_SECONDS, stamp: Mapping[str, Any] | None = None, waits_for_place: bool = False
) -> PatientStorage:  # fmt: skip
    """Open the storage that ``url`` names, created at the first use if it is missing; see ``PatientStorage``.

    A plain path ending in .log or .journal, or ``journal:///absolute/path``: a journal file of ours. Otherwise an
    Optuna URL: sqlite, postgresql or mysql. Raises ConfigError for any other, and where a driver is missing, naming
    what to install.
    """
    return PatientStorage(parse_storage_url(url), patience_seconds, stamp, waits_for_place)


def create_study_once(
    storage: PatientStorage,
    name: str,
    directions: Sequence[str],
    *,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """Return the study ``name``, created if it isn't there, with ``directions`` of ``minimize`` and ``maximize``.

    Safe for any number of processes at once, on a database that does not exist yet. Raises ConfigError if the study
    exists with other directions.
    """
    wanted = [StudyDirection[direction.upper()] for direction in directions]
    study = optuna.create_study(
        storage=storage, study_name=name, directions=wanted, sampler=sampler, pruner=pruner, load_if_exists=True
    )
    if study.directions != wanted:
        stored = [direction.name.lower() for direction in study.directions]
        raise ConfigError(f"study {name!r} in {storage.address} has directions {stored}, the sweep {list(directions)}")
    return study
