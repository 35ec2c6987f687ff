"""A study on disk, as ``winnow study`` and ``winnow promote`` find it: its folder, its description, its trials."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import optuna
from optuna.trial import FrozenTrial
from pydantic import Strict
from sqlalchemy.exc import SQLAlchemyError

from winnow.errors import ConfigError
from winnow.masking import MASK, is_masked, masked, usable
from winnow.reading import UnreadableError, as_record, naming, read_yaml
from winnow.sweep.address import parse_storage_url
from winnow.sweep.listed import unlisted_in
from winnow.sweep.objectives import Objectives
from winnow.sweep.outage import first_line
from winnow.sweep.pruners import is_eliminated
from winnow.sweep.storage import open_storage
from winnow.sweep.table import Row, rows_of

DESCRIPTION = "sweep.yaml"
JOURNAL = "study.journal"
KEYS = ("study_name", "storage", "metric", "overrides", "hydra_overrides", "search_path", "definition")
"""Of the description: what the study is called, where it is stored, what it maximises or minimises, what the command line said of
runs and of Hydra, where config groups lie besides conf/, what is searched."""


@dataclass(frozen=True)
class StoredStudy:
    """``description`` is what ``sweep.yaml`` holds, under ``KEYS``."""

    folder: Path
    description: dict[str, Any]
    study: optuna.Study

    @classmethod
    def open(cls, folder: Path, storage: str | None = None) -> StoredStudy:
        """Read the study in ``folder``. ``storage`` is needed if the stored address lacks its secret and the environment does not
        have it. Raises ConfigError if there is no study, or its description is damaged.
        """
        path = folder / DESCRIPTION
        if not path.exists():
            raise ConfigError(f"{folder} is no study: it has no {DESCRIPTION}; studies lie in multirun/NAME")
        description = _read(path)
        kept = description["storage"] or journal_address(folder)
        address = storage or usable(kept, os.environ.get("OPTUNA_STORAGE", MASK))
        if is_masked(address):
            raise ConfigError(
                f"the study's storage is {address}, without its secret; give it whole by --storage or OPTUNA_STORAGE, or set "
                "PGPASSWORD or PGPASSFILE"
            )
        optuna.logging.set_verbosity(logging.WARNING)
        try:
            with naming(f"{path}: storage" if storage is None else "--storage"):
                file = parse_storage_url(address).path
                if file is not None and not file.exists():  # opening it would make it
                    raise ConfigError(
                        f"{file} holds no study named {description['study_name']!r}: there is no such file; name the study's "
                        "storage by --storage if it was moved"
                    )
                opened = open_storage(address)
            study = optuna.load_study(study_name=description["study_name"], storage=opened)
        except SQLAlchemyError as error:
            raise ConfigError(f"the study's storage {masked(address)} can't be read: {first_line(error)}") from error
        except KeyError:
            raise ConfigError(f"{masked(address)} holds no study named {description['study_name']!r}") from None
        return cls(folder, description, study)

    @classmethod
    def of(cls, folder: Path, study: optuna.Study) -> StoredStudy:
        """Return the study in ``folder`` that the caller has open. Raises ConfigError where its description is damaged."""
        return cls(folder, _read(folder / DESCRIPTION), study)

    @property
    def maximize(self) -> bool:
        return bool(self.study.directions[0] == optuna.study.StudyDirection.MAXIMIZE)

    @property
    def objectives(self) -> Objectives:
        return Objectives.of(self.study, str(self.description["metric"]))

    def rows(self) -> list[Row]:
        """Return the trials' rows. Raises ConfigError for a trial that holds something damaged."""
        with naming(f"study {self.description['study_name']!r}"):
            trials = self.study.get_trials(deepcopy=False)
            return rows_of(trials, self._is_eliminated, unlisted_in(self.study), len(self.study.directions))

    def _is_eliminated(self, trial: FrozenTrial) -> bool:
        floor = (self.description["definition"].get("pruner") or {}).get("floor")
        return is_eliminated(trial.values[0] if trial.values else None, floor, self.maximize)


def _read(path: Path) -> dict[str, Any]:
    found = read_yaml(path, "a study's description, which the sweep's own command writes anew", ConfigError)
    missing = [key for key in KEYS if not isinstance(found, dict) or key not in found]
    if missing:
        raise ConfigError(
            f"{path} lacks {', '.join(missing)}: it is torn or another version's; the sweep's own command writes it anew"
        )
    try:
        as_record(_Description, found)
    except UnreadableError as error:
        raise ConfigError(f"{path} is damaged, {error}; the sweep's own command writes it anew") from None
    return dict(found)


@dataclass(frozen=True)
class _Pruner:
    floor: Annotated[float, Strict()] | None = None


@dataclass(frozen=True)
class _Searched:
    base: dict[str, Any]
    search_space: dict[str, Any]
    directions: list[str]
    pruner: _Pruner | None = None


@dataclass(frozen=True)
class _Description:
    study_name: str
    storage: str | None
    metric: str
    overrides: list[str]
    hydra_overrides: list[str]
    search_path: list[str]
    definition: _Searched


def journal_address(folder: Path) -> str:
    """Return the address of the embedded store, for a study that names no other."""
    return f"journal:///{(folder / JOURNAL).absolute()}"
