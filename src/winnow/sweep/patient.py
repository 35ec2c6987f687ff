"""A storage that waits where Optuna's give up: each call is repeated while the database is locked, restarted or gone."""

from __future__ import annotations

import copy
import math
import os
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from winnow.sweep.address import Address, Opened
from winnow.sweep.outage import Outage, is_away
from winnow.sweep.place import trouble_in

CREATION = "winnow:creation"
"""System attribute of a trial: a token by which a repeated creation finds the trial that the first attempt made after all."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 5.0

# Of its own: a run whose storage was away must draw the same numbers as any other.
_rng = random.Random()

Answer = TypeVar("Answer")


class PatientStorage(BaseStorage):
    """The storage at ``address``, each call repeated for up to ``patience_seconds`` while it is away, and then its error raised.

    Errors of logic (KeyError, DuplicatedStudyError, UpdateFinishedTrialError, ValueError) pass at once. What a repeated call may
    find done by its first attempt, whose answer was lost:

    * a trial created: found by its token, so there is no second one. Optuna repeats a creation by itself too; what it doubled
      goes to the queue, for the next ``ask`` (a trial that was to wait there may run twice);
    * a result told: ``UpdateFinishedTrialError`` is success where the stored result is the same;
    * WAITING → RUNNING: reads as lost to somebody else; the trial has no owner's stamp and is an orphan after a grace;
    * RUNNING → WAITING: not done again where another process has taken the trial since;
    * a study deleted: its absence is success. A study created: DuplicatedStudyError, as if somebody else had done it;
    * parameters, intermediate values, attributes: the same value is written twice.

    With ``waits_for_place`` there is no end to that while the disk that holds it is full or failing.

    ``stamp`` holds user attributes that each RUNNING trial created through here bears from its first instant. It can be pickled,
    and used after a fork: each process opens connections of its own.
    """

    def __init__(
        self, address: Address, patience_seconds: float, stamp: Mapping[str, Any] | None = None, waits_for_place: bool = False
    ) -> None:  # fmt: skip
        self.address = address
        self._waits_for_place = waits_for_place
        self._patience_seconds = patience_seconds
        self._stamp = dict(stamp or {})
        self._forget_connections()

    def __getstate__(self) -> dict[str, Any]:
        names = ("address", "_patience_seconds", "_stamp", "_waits_for_place")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_connections()

    def _forget_connections(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._current: Opened | None = None
        self._outage = Outage(str(self.address), self._patience_seconds)

    def _opened(self) -> Opened:
        if self._pid != os.getpid():
            self._of_parent = self._current  # held on to, so that its connections are not closed under the parent
            self._forget_connections()
        with self._lock:
            if self._current is None:
                self._current = self.address.open()
                weakref.finalize(self, self._current.close)
            return self._current

    def close(self) -> None:
        """Close the connections to a server; the next call opens new ones."""
        with self._lock:
            if self._current is not None:
                self._current.close()
            self._current = None

    def _retry_while_away(self, act: Callable[[BaseStorage, bool], Answer]) -> Answer:
        """Return what ``act(storage, is_repeated)`` gives, repeating it while the storage is away."""
        deadline, pause = None, FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = act(self._opened().storage, deadline is not None)
            except (StorageInternalError, SQLAlchemyError, OSError) as error:
                if not is_away(error):
                    raise
                deadline = deadline or time.monotonic() + self._patience_seconds
                is_endless = self._waits_for_place and trouble_in(error) is not None
                if time.monotonic() >= deadline and not is_endless:
                    self._outage.give_up(error)
                    raise
                self._outage.note(error, is_endless)
                left = math.inf if is_endless else max(0.0, deadline - time.monotonic())
                time.sleep(min(pause * _rng.uniform(0.5, 1), left))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self._outage.end()
                return answer

    def _call(self, name: str, *args: Any) -> Any:
        return self._retry_while_away(lambda storage, is_repeated: getattr(storage, name)(*args))

    @contextmanager
    def exclusive(self, purpose: str) -> Iterator[None]:
        """Hold the lock as ``Address.exclusive`` does, but wait for a storage that is away to come back first."""
        with ExitStack() as stack:
            self._retry_while_away(lambda storage, is_repeated: stack.enter_context(self.address.exclusive(purpose)))
            yield

    # Studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._call("create_new_study", directions, study_name)

    def delete_study(self, study_id: int) -> None:
        def delete(storage: BaseStorage, is_repeated: bool) -> None:
            try:
                storage.delete_study(study_id)
            except KeyError:
                if not is_repeated:
                    raise

        self._retry_while_away(delete)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._call("set_study_user_attr", study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._call("set_study_system_attr", study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._call("get_study_id_from_name", study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._call("get_study_name_from_id", study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._call("get_study_directions", study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._call("get_study_user_attrs", study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._call("get_study_system_attrs", study_id)

    def get_all_studies(self) -> list[Any]:
        return self._call("get_all_studies")

    # Trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        template = copy.copy(template_trial) if template_trial else create_trial(state=TrialState.RUNNING)
        token = uuid.uuid4().hex
        template.system_attrs = {**template.system_attrs, CREATION: token}
        if template.state == TrialState.RUNNING:
            template.user_attrs = {**template.user_attrs, **self._stamp}

        def created(storage: BaseStorage) -> list[int]:
            trials = storage.get_all_trials(study_id, deepcopy=False)
            numbers = [trial.number for trial in trials if trial.system_attrs.get(CREATION) == token]
            return [storage.get_trial_id_from_study_id_trial_number(study_id, number) for number in numbers]

        def create(storage: BaseStorage, is_repeated: bool) -> int:
            found = created(storage) if is_repeated else []
            if not found:
                num_errors = self._opened().num_errors
                trial_id = storage.create_new_trial(study_id, template)
                if self._opened().num_errors == num_errors:
                    return trial_id
                found = created(storage)
            for doubled in found[1:]:
                storage.set_trial_state_values(doubled, TrialState.WAITING)
            return found[0]

        return self._retry_while_away(create)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._call("set_trial_param", trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if state == TrialState.WAITING:
            return self._give_back(trial_id, values)

        def tell(storage: BaseStorage, is_repeated: bool) -> bool:
            try:
                return storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                stored = storage.get_trial(trial_id)
                is_same = stored.state == state and list(stored.values or []) == list(values or [])
                if not (is_repeated and is_same):
                    raise
                return True

        return self._retry_while_away(tell)

    def _give_back(self, trial_id: int, values: Sequence[float] | None) -> bool:
        started = self.get_trial(trial_id).datetime_start

        def give_back(storage: BaseStorage, is_repeated: bool) -> bool:
            if is_repeated:
                stored = storage.get_trial(trial_id)
                if stored.state == TrialState.WAITING or stored.datetime_start != started:
                    return True
            return storage.set_trial_state_values(trial_id, TrialState.WAITING, values)

        return self._retry_while_away(give_back)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._call("set_trial_intermediate_value", trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._call("set_trial_user_attr", trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._call("set_trial_system_attr", trial_id, key, value)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._call("get_trial_id_from_study_id_trial_number", study_id, trial_number)

    def get_trial_number_from_id(self, trial_id: int) -> int:
        return self._call("get_trial_number_from_id", trial_id)

    def get_trial_param(self, trial_id: int, param_name: str) -> float:
        return self._call("get_trial_param", trial_id, param_name)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._call("get_trial", trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._call("get_all_trials", study_id, deepcopy, states)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return self._call("get_best_trial", study_id)

    def remove_session(self) -> None:
        if self._current is not None and self._pid == os.getpid():
            self._current.storage.remove_session()
