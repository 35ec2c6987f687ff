"""The run's side of a sweep: where its numbers are reported, who says whether to stop, and what became of it."""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from winnow.masking import referred_to
from winnow.reading import as_float, parse_json
from winnow.run_folder import write_whole
from winnow.sweep.outcome import COST, OUTCOME, Outcome, outcome_of
from winnow.sweep.patient import PatientStorage
from winnow.sweep.storage import open_storage

logger = logging.getLogger(__name__)

REPORTS = "reports.json"
SEED_KEY = "training.seed"
"""The key that ``seeds`` are given to, unless ``hydra.sweeper.repeat_over`` names another."""
_REPORT_PATIENCE_SECONDS = 10.0
_OUTCOME_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class StudyRef:
    """All that a job needs to find its study, on whatever machine it runs.

    ``folder`` is the study's own, ``metrics`` the names of several objectives in a winnow run's ``result.json`` (null: what the
    run returns), ``seeds`` those that each configuration is run with, given to ``repeated_key``. ``storage`` may be a reference
    to the job's environment. ``counts_cost`` where the study has a limit of cost, and its runs tell what they have spent.
    ``searched`` are the keys that the study gives values to.
    """

    name: str
    storage: str
    folder: str
    pruner: BasePruner | None
    num_objectives: int = 1
    metrics: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    counts_cost: bool = False
    repeated_key: str = SEED_KEY
    searched: tuple[str, ...] = ()


class StoredTrial:
    """Obeys ``protocols.Trial``: reports to the study's storage and asks its pruner.

    A storage that is gone costs an evaluation at most ten seconds; what could not be reported is reported with the next
    epoch's value, or at the end by ``catch_up``. Each value is first written to ``folder``, where there is one, so that a run
    that is killed meanwhile and resumed there reports it after all. ``reason`` is why the pruner last said what it said. Of a
    configuration that is run with several seeds only the first run reports: the pruner compares configurations at equal epochs.
    """

    def __init__(self, ref: StudyRef, number: int, seed: int | None = None, folder: Path | None = None) -> None:
        self.ref = ref
        self.number = number
        self.seed = seed
        self.reason: str | None = None
        self._path = None if folder is None else folder / REPORTS
        self._values = _read(self._path) if self._path is not None else {}
        self._epoch = 0
        self._stored: set[int] = set()
        self._trial: optuna.Trial | None = None
        self._is_quiet = ref.num_objectives > 1 or (ref.seeds is not None and seed != ref.seeds[0])

    def report(self, value: float, epoch: int) -> None:
        if self._is_quiet:
            return
        self._values[epoch] = value if math.isfinite(value) else math.nan
        self._epoch = epoch
        try:
            if self._path is not None:
                write_whole(self._path, json.dumps(self._values))
        except OSError as error:
            logger.warning("trial %d: a kill before epoch %d is reported would lose it: %s", self.number, epoch, error)
        try:
            self._report_missing(self._open())
        except Exception as error:  # noqa: BLE001 - whatever the storage does, the training goes on
            logger.warning("trial %d: epoch %d is not reported yet: %s", self.number, epoch, error)
            self._trial = None

    def spend(self, cost: Mapping[str, float]) -> None:
        if not self.ref.counts_cost:
            return
        try:
            self._open().set_user_attr(key_of_run(COST, self.seed), json.dumps(dict(cost)))
        except Exception as error:  # noqa: BLE001 - whatever the storage does, the training goes on
            logger.warning("trial %d: what it has cost so far is not stored: %s", self.number, error)
            self._trial = None

    def catch_up(self) -> None:
        """Report what is missing at the end of the run, however long the storage takes to come back."""
        if self._values.keys() - self._stored and self._epoch:
            try:
                self._report_missing(self._open(_OUTCOME_PATIENCE_SECONDS))
            except Exception as error:
                logger.exception("trial %d: not all its epochs could be reported: %s", self.number, error)

    def should_prune(self) -> bool:
        if self._is_quiet or self.ref.pruner is None or isinstance(self.ref.pruner, NopPruner):
            return False
        try:
            trial = self._open()
            verdict = bool(trial.should_prune())
            decision = getattr(self.ref.pruner, "last", None)
            for name, number in (decision.attributes if decision is not None else {}).items():
                trial.set_user_attr(name, number)
            self.reason = decision.reason if decision is not None else f"by {type(self.ref.pruner).__name__}"
            return verdict
        except Exception as error:  # noqa: BLE001 - whatever the storage does, the training goes on
            logger.warning("trial %d: not asked whether to prune: %s", self.number, error)
            self._trial = None
            return False

    def _report_missing(self, trial: optuna.Trial) -> None:
        # Not those of a life that came further than its last checkpoint: they come again.
        for epoch in sorted(epoch for epoch in self._values.keys() - self._stored if epoch <= self._epoch):
            trial.report(self._values[epoch], epoch)
            self._stored.add(epoch)

    def _open(self, patience_seconds: float = _REPORT_PATIENCE_SECONDS) -> optuna.Trial:
        if self._trial is None:
            trial = open_trial(self.ref, self.number, patience_seconds)
            self._stored = set(trial.storage.get_trial(trial._trial_id).intermediate_values)
            self._trial = trial
        return self._trial


def _read(path: Path) -> dict[int, float]:
    try:
        return {int(epoch): as_float(value) for epoch, value in dict(parse_json(path.read_bytes())).items()}
    except (OSError, TypeError, ValueError):
        return {}


def open_trial(ref: StudyRef, number: int, patience_seconds: float) -> optuna.Trial:
    """Open trial ``number`` of the stored study, from any process. Raises KeyError if the study or the trial is not there."""
    storage = _storage(referred_to(ref.storage), patience_seconds)
    study = optuna.load_study(
        study_name=ref.name, storage=storage, sampler=_SilentSampler(), pruner=ref.pruner or NopPruner()
    )
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


@functools.lru_cache(maxsize=4)
def _storage(url: str, patience_seconds: float) -> PatientStorage:
    """Open the storage once per process, for its next trial too: opening reads a journal from its beginning, or checks
    a database's tables.
    """
    return open_storage(url, patience_seconds=patience_seconds)


def store_outcome(ref: StudyRef, number: int, outcome: Outcome) -> bool:
    """Write ``outcome`` on the trial; return False, with an error in the log, if the storage stayed away for ten minutes."""
    try:
        trial = open_trial(ref, number, _OUTCOME_PATIENCE_SECONDS)
        trial.set_user_attr(outcome_key(outcome.seed), outcome.to_json())
    except Exception as error:
        logger.exception("trial %d: its outcome could not be stored: %s", number, error)
        return False
    return True


def stored_outcome(ref: StudyRef, number: int, seed: int | None) -> Outcome | None:
    """Return what ``store_outcome`` kept; None if there is nothing yet."""
    trial = open_trial(ref, number, _OUTCOME_PATIENCE_SECONDS)
    return outcome_of(trial, outcome_key(seed))


def repeat_folder(repeated_key: str, seed: int) -> str:
    """Return the folder, in the trial's own, of its run with ``seed``: ``seed_3``, ``fold_0``."""
    return f"{repeated_key.rpartition('.')[2]}_{seed}"


def outcome_key(seed: int | None) -> str:
    return key_of_run(OUTCOME, seed)


def key_of_run(name: str, seed: int | None) -> str:
    """Return the attribute ``name`` of a trial's only run, or of its run with ``seed``."""
    return name if seed is None else f"{name}:{seed}"


class _SilentSampler(BaseSampler):
    """Proposes nothing: the sweep's own sampler has chosen the values, and building a Trial must not ask it again."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise RuntimeError(f"{param_name} was not chosen by the sweep, and a run can't choose it")
