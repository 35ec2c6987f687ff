"""Claims on running trials: which ones this process answers for, and how it takes over those whose owner died."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from winnow.process import ProcessStamp
from winnow.sweep.outage import first_line, is_away
from winnow.sweep.outcome import OUTCOME, OWNER, RELEASED
from winnow.sweep.ownership import HEARTBEAT, Heartbeats, Liveness, liveness
from winnow.sweep.patient import PatientStorage

logger = logging.getLogger(__name__)

OBSERVATION_SECONDS, BEAT_SECONDS, GRACE_SECONDS = 60.0, 5.0, 60.0
_LEAVING_SECONDS = 1.0


class Claims:
    """The claims of ``owner`` on trials of ``study`` in ``storage``; hold them inside of ``beating``, or call ``beat`` often.

    A trial is an orphan when its owner is dead; when it has had no stamp for ``grace_seconds`` of our watching (its owner died
    between taking and stamping it); or when it bears our own stamp for as long although we never claimed it (the sampler raised
    after the trial was created, or an earlier sweep of this process left it).
    """

    def __init__(
        self,
        study: Study,
        storage: PatientStorage,
        owner: ProcessStamp,
        *,
        observation_seconds: float = OBSERVATION_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._study = study
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._owner = owner
        self._heartbeats = Heartbeats(observation_seconds)
        self._beat_seconds, self._grace_seconds = beat_seconds, grace_seconds
        self._held: set[int] = set()
        self._unclaimed_since: dict[int, float] = {}
        self._num_beats, self._last_beat = 0, -float("inf")
        self.beat()

    def claim(self, trial: Trial | FrozenTrial) -> None:
        """Answer for a trial that ``study.ask`` gave to us: stamp it, unless the storage did so when it created it."""
        if trial.user_attrs.get(OWNER) != self._owner.to_json():
            self._stamp(trial.number, self._owner.to_json())
        self._held.add(trial.number)

    def orphans(self) -> list[FrozenTrial]:
        """Return RUNNING trials that nobody answers for, in order. Call it again every few seconds: another host's
        death takes watching.
        """
        self._heartbeats.look(self._study.user_attrs)
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        numbers = {trial.number for trial in running}
        self._unclaimed_since = {n: since for n, since in self._unclaimed_since.items() if n in numbers}
        return [trial for trial in running if self._is_orphan(trial)]

    def adopt(self, trial: FrozenTrial) -> bool:
        """Take over an orphan; True for exactly one of the processes that try.

        All that share the storage take one lock (see ``Address.exclusive``), look again and stamp. Limits: a file lock holds
        over machines as far as the file system's locks do; a database server restarted at just that instant may let two stamp,
        of which the one that was cut off gives way.
        """
        try:
            with self._storage.exclusive("adoption"):
                stored = self.stored(trial.number)
                if stored.state != TrialState.RUNNING or not self._is_orphan(stored):
                    return False
                self._stamp(trial.number, self._owner.to_json())
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            logger.warning(
                "trial %d was not taken over: the storage went away meanwhile: %s", trial.number, first_line(error)
            )
            return False
        if self.stored(trial.number).user_attrs.get(OWNER) != self._owner.to_json():
            return False
        self._held.add(trial.number)
        return True

    def give_back(self, trial: Trial | FrozenTrial) -> None:
        """Return a trial of ours that never started to the queue, with its parameters: the next ``ask`` of anybody gets it.

        Raises ValueError for one that reported a value or has an outcome: those would be the next run's too.
        """
        stored = self.stored(trial.number)
        if stored.intermediate_values or OUTCOME in stored.user_attrs:
            raise ValueError(f"trial {trial.number} has started, so it can't be given back")
        if stored.user_attrs.get(OWNER) not in (self._owner.to_json(), None):
            raise ValueError(f"trial {trial.number} belongs to {stored.user_attrs[OWNER]}")
        self._stamp(trial.number, None)
        self._storage.set_trial_state_values(self._id(trial.number), TrialState.WAITING)
        self._held.discard(trial.number)

    def release(self, number: int) -> None:
        """Give up a trial of ours that has started: whoever looks next adopts it at once, and goes on where it stands."""
        self._stamp(number, RELEASED)
        self._held.discard(number)

    def stored(self, number: int) -> FrozenTrial:
        """Return a trial as the storage has it now."""
        return self._storage.get_trial(self._id(number))

    def beat(self) -> None:
        """Count one heartbeat, if the last is ``beat_seconds`` ago."""
        if time.monotonic() - self._last_beat >= self._beat_seconds:
            self._num_beats += 1
            self._storage.set_study_user_attr(self._study_id, HEARTBEAT + self._owner.id, self._num_beats)
            self._last_beat = time.monotonic()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat inside, from a thread of its own: whatever this one does or waits for, the process lives."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(is_over,), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join(_LEAVING_SECONDS)  # no longer: it may wait for a storage that is gone

    def _beat_until(self, is_over: threading.Event) -> None:
        while not is_over.wait(self._beat_seconds / 2):
            try:
                self.beat()
            except Exception as error:  # noqa: BLE001 - the storage is gone for good, which the sweep is told by its own calls
                logger.warning("this process could not show that it lives: %s", first_line(error))

    def _is_orphan(self, trial: FrozenTrial) -> bool:
        stamp = trial.user_attrs.get(OWNER)
        if stamp is None or (stamp == self._owner.to_json() and trial.number not in self._held):
            since = self._unclaimed_since.setdefault(trial.number, time.monotonic())
            return time.monotonic() - since >= self._grace_seconds
        self._unclaimed_since.pop(trial.number, None)
        if stamp == RELEASED:
            return True
        try:
            owner = ProcessStamp.from_json(stamp)
        except ValueError:
            logger.warning(
                "trial %d bears a stamp that names no process, so nobody answers for it: %r", trial.number, stamp
            )
            return True
        return liveness(owner, self._heartbeats) == Liveness.DEAD

    def _stamp(self, number: int, stamp: str | None) -> None:
        self._storage.set_trial_user_attr(self._id(number), OWNER, stamp)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
