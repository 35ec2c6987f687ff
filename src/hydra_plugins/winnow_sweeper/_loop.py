"""The sweep itself: keep every slot busy, take what ends, until all trials are done or there is a reason to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from optuna.trial import FrozenTrial

from hydra_plugins.winnow_sweeper._job import Finished, Job, Slots
from hydra_plugins.winnow_sweeper._judge import Judge
from hydra_plugins.winnow_sweeper._limits import Limits, SweepFailedError
from hydra_plugins.winnow_sweeper._place import Place
from hydra_plugins.winnow_sweeper._supply import Supply
from winnow.engine.stop import StopRequest
from winnow.sweep.claims import Claims
from winnow.sweep.outcome import Outcome
from winnow.sweep.place import trouble_in

logger = logging.getLogger(__name__)

INTERRUPTED = "interrupted"
_TICK_SECONDS = 1.0
_HOUSEKEEPING_SECONDS = 5.0


class SweepReport(Protocol):
    """Who shows the sweep to people."""

    def started(self, name: str, overrides: Sequence[str]) -> None: ...

    def finished(self, number: int, outcome: Outcome) -> None: ...

    def tick(self, running: Sequence[int], elsewhere: int) -> None:
        """Refresh what is shown; called about once a second."""
        ...


class SweepLoop:
    """One process's share of a study."""

    def __init__(
        self, supply: Supply, slots: Slots, judge: Judge, limits: Limits, claims: Claims,
        report: SweepReport, max_retries: int, folder: Path,
    ) -> None:  # fmt: skip
        self._supply = supply
        self._slots = slots
        self._judge = judge
        self._limits = limits
        self._claims = claims
        self._report = report
        self._max_retries = max_retries
        self._folder = folder
        self._place = Place(folder)
        self._is_paused = False
        self._running: dict[str, Job] = {}
        self._unsettled: set[int] = set()
        self._failure: SweepFailedError | None = None
        self._next_housekeeping = 0.0
        self._elsewhere = 0

    def run(self) -> str | None:
        """Run the sweep; return why it ended early, or None if all trials are done. Raises SweepFailedError if too many
        trials failed, once everything has stopped.

        A first Ctrl-C lets the running trials save; they are given back, and go on at the next start. A second one
        raises KeyboardInterrupt.
        """
        with StopRequest("running trials save and are given back") as stop:
            reason = self._work(stop)
        if self._failure is not None:
            raise self._failure
        return reason

    def _work(self, stop: StopRequest) -> str | None:
        reason: str | None = None
        while True:
            if reason is None:
                reason = self._reason_to_stop(stop)
                if reason is not None:
                    logger.info("%s: the running trials save and end", reason)
                    self._slots.interrupt()
                else:
                    self._housekeep()
                    self._fill()
            if not self._running and (reason is not None or (self._elsewhere == 0 and not self._is_paused)):
                break
            if not self._running:
                time.sleep(_TICK_SECONDS)
            for finished in self._slots.wait(_TICK_SECONDS if self._running else 0.0):
                self._take(finished, is_ending=reason is not None)
            self._report.tick([job.number for job in self._running.values()], self._elsewhere)
        self._supply.release(self._unsettled)
        return reason or self._spent()

    def _reason_to_stop(self, stop: StopRequest) -> str | None:
        if stop.requested:
            return INTERRUPTED
        if self._failure is not None:
            return "too many failures"
        return self._spent()

    def _spent(self) -> str | None:
        """Return which limit is spent while there is more to do; a sweep that has done all did not end for it."""
        spent = self._limits.spent()
        return spent if spent is not None and (self._running or self._supply.is_any_left()) else None

    def _housekeep(self) -> None:
        """Look for trials that nobody answers for, now and then, whenever there is nothing else to do, and after a pause."""
        is_usable = self._place.is_usable()
        has_pause_ended = self._is_paused and is_usable
        if time.monotonic() < self._next_housekeeping and self._running and not has_pause_ended:
            return
        self._next_housekeeping = time.monotonic() + _HOUSEKEEPING_SECONDS
        if is_usable:
            self._is_paused = False
            self._supply.adopt_orphans(self._unsettled, self._settle)
        self._elsewhere = self._supply.num_waiting_elsewhere(self._unsettled)

    def _fill(self) -> None:
        while not self._is_paused and self._slots.num_free() and self._limits.spent() is None:
            job = self._supply.next()
            if job is None:
                return
            self._running[job.name] = job
            self._unsettled.add(job.number)
            try:
                self._slots.submit(job)
            except OSError as error:
                if (trouble := trouble_in(error)) is None:
                    raise
                del self._running[job.name]
                self._give_back(job, trouble)
                return
            self._report.started(job.name, job.overrides)

    def _give_back(self, job: Job, trouble: str) -> None:
        """Let go of a job that trouble of the place ended, and of its trial unless another of its seeds runs here."""
        self._is_paused = True
        self._place.pause(job.name, trouble)
        if self._claims.stored(job.number).state.is_finished():
            return  # another of its seeds ended it
        if any(other.number == job.number for other in self._running.values()):
            self._supply.put_back(job, counts=False)
            return
        self._supply.give_back(job)
        self._unsettled.discard(job.number)

    def _take(self, finished: Finished, is_ending: bool) -> None:
        job, outcome = finished.job, finished.outcome
        del self._running[job.name]
        if (trouble := self._place.trouble_of(finished)) is not None:
            if not is_ending:
                self._give_back(job, trouble)
            return
        if outcome is None and not is_ending and job.attempt >= self._max_retries:
            run_folder = str((self._folder / job.subdir).absolute())
            outcome = Outcome("failed", reason=f"died: {finished.death}", seed=job.seed, run_folder=run_folder)
        if outcome is None or outcome.status == "interrupted":
            if not is_ending:
                logger.warning(
                    "trial %s %s; it goes on from its checkpoint", job.name, finished.death or "was interrupted"
                )
                self._supply.put_back(job, counts=outcome is None)
            return
        if outcome.is_retryable and job.attempt < self._max_retries and not is_ending:
            logger.warning("trial %s failed and is tried again: %s", job.name, outcome.reason)
            self._supply.put_back(job, counts=True)
            return
        trial = self._claims.stored(job.number)
        if trial.state.is_finished():
            return  # another of its seeds ended it: by failing, or when this one had stored its outcome and not been heard yet
        if self._judge.store(trial, outcome):
            trial = self._claims.stored(job.number)
        if not self._settle(trial):
            self._supply.queue_other_seeds(job)

    def _settle(self, trial: FrozenTrial) -> bool:
        outcome = self._judge.settle(trial)
        if outcome is None:
            return False
        self._unsettled.discard(trial.number)
        self._limits.count(outcome)
        self._report.finished(trial.number, outcome)
        try:
            self._limits.require_health(outcome)
        except SweepFailedError as error:
            self._failure = error
        return True
