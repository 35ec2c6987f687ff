"""The supply of jobs for free slots: dead trials first, then listed ones, then what the sampler proposes."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.winnow_sweeper._job import Job
from hydra_plugins.winnow_sweeper._points import Points
from winnow.checkpoints.seal import has_whole_checkpoint
from winnow.config.from_file import require_run_overrides
from winnow.config.moved import with_moved_target
from winnow.reading import naming
from winnow.sweep.claims import Claims
from winnow.sweep.listed import given_values, withdraw
from winnow.sweep.outcome import OUTCOME, OWNER, RELEASED, STARTED, overrides_of
from winnow.sweep.trial import SEED_KEY, outcome_key, repeat_folder

logger = logging.getLogger(__name__)

RESUME = "training.resume=auto"


class Supply:
    """Jobs of one study, up to ``n_trials`` over all processes that work on it, and where its ``points`` have an end, one for
    each of them.

    The storage numbers trials one by one, so whoever is given number ``n_trials`` or more gives it back, and the total is
    exact however many ask at once. ``turn`` is held while a trial is chosen: one process at a time sees which points are free.
    """

    def __init__(
        self,
        study: optuna.Study,
        n_trials: int,
        distributions: Mapping[str, BaseDistribution],
        to_overrides: Callable[[Mapping[str, Any]], tuple[str, ...]],
        extend: Callable[[optuna.Trial], None] | None,
        claims: Claims,
        seeds: Sequence[int] | None,
        resumable_folder: Path | None,
        recall: Callable[[int], None],
        points: Points | None,
        turn: AbstractContextManager[object],
        is_spent: Callable[[], bool] = lambda: False,
        repeated_key: str = SEED_KEY,
    ) -> None:
        self._repeated_key = repeated_key
        self._study = study
        self._n_trials = n_trials
        self._distributions = dict(distributions)
        self._to_overrides = to_overrides
        self._extend = extend
        self._claims = claims
        self._seeds = seeds
        self._resumable_folder = resumable_folder
        self._recall = recall
        self._points = points
        self._turn = turn
        self._is_spent = is_spent
        self._ready: deque[Job] = deque()
        self._num_troubles: Counter[int] = Counter()
        self._turns: dict[int, int] = {}  # of a trial that was given back: how many new ones go before it

    def next(self) -> Job | None:
        """Return a claimed job, or None if nothing is left to start."""
        if self._ready:
            return self._ready.popleft()
        if len(self._turns) > 1:
            self._turns.clear()  # trouble that more than one has is no single trial's: nothing new before these
            return None
        with self._turn:
            if not self.is_any_left():
                self._turns.clear()
                return None
            trial = self._study.ask(self._distributions)
            if trial.number >= self._n_trials or self._is_spent():
                self._claims.give_back(trial)
                return None
            self._turns = {number: turns - 1 for number, turns in self._turns.items() if turns > 1}
            self._claims.claim(trial)
        if self._extend is not None:
            self._extend(trial)
        self._queue(self._claims.stored(trial.number))
        return self._ready.popleft() if self._ready else None

    def adopt_orphans(self, running: set[int], settle: Callable[[FrozenTrial], bool]) -> None:
        """Take over trials whose process is dead. They go on where they stood, before anything new is started, but for those
        that ``settle`` finds ended: only nobody was told."""
        for trial in self._claims.orphans():
            is_ours = trial.number in running or self._holds(trial.number)
            if not is_ours and trial.number not in self._turns and self._claims.adopt(trial):
                if not (trial.user_attrs.get(STARTED) or trial.intermediate_values or OUTCOME in trial.user_attrs):
                    # Its process died, or its sampler failed, before all its values were chosen: the next ask chooses them.
                    self._claims.give_back(trial)
                    continue
                if settle(self._claims.stored(trial.number)):
                    continue
                is_released = trial.user_attrs.get(OWNER) == RELEASED
                whence = "given back" if is_released else "left by a process that is gone"
                logger.info("trial %d was %s; it goes on", trial.number, whence)
                self._recall(trial.number)
                self._queue(self._claims.stored(trial.number))

    def put_back(self, job: Job, counts: bool) -> None:
        """Put ``job``, which ended too early, back: to be started again, from its own checkpoint, before anything new.
        ``counts`` says whether that was its own fault.
        """
        overrides = self._resuming(job.overrides, job.subdir)
        self._ready.appendleft(replace(job, overrides=overrides, attempt=job.attempt + counts))

    def give_back(self, job: Job) -> None:
        """Let whoever is first, here or elsewhere, go on with the trial of ``job``, which trouble of the place ended. One that
        has such trouble again and again lets new trials go before it: 1, 3, 7 …"""
        self._num_troubles[job.number] += 1
        if turns := 2 ** (self._num_troubles[job.number] - 1) - 1:
            self._turns[job.number] = turns
        self._ready = deque(other for other in self._ready if other.number != job.number)
        self._claims.release(job.number)

    def queue_other_seeds(self, job: Job) -> None:
        """Queue the other seeds of ``job``, which has completed, if it was the first seed's."""
        if self._seeds is not None and job.seed == self._seeds[0]:
            self._queue(self._claims.stored(job.number))

    def release(self, numbers: set[int]) -> None:
        """Let the next start, or another process, go on with these running trials and all that waits here."""
        for number in sorted(numbers | {job.number for job in self._ready}):
            self._claims.release(number)
        self._ready.clear()

    def _holds(self, number: int) -> bool:
        return any(job.number == number for job in self._ready)

    def num_waiting_elsewhere(self, running: set[int]) -> int:
        """Count the trials that run in other processes."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return sum(trial.number not in running for trial in trials)

    def is_any_left(self) -> bool:
        """Return whether a trial is left to start."""
        if self._points is not None:
            self._withdraw_repeats(self._points)
        trials = self._study.get_trials(deepcopy=False)
        waiting = any(trial.state == TrialState.WAITING and trial.number < self._n_trials for trial in trials)
        if waiting or len(trials) >= self._n_trials:
            return waiting
        return self._points is None or self._points.num_free(self._points.taken(trials)) > 0

    def _withdraw_repeats(self, points: Points) -> None:
        """End what waits next, and could only be what others were or are, until something else is next."""
        while points.distributions:
            trials = self._study.get_trials(deepcopy=False)
            trial = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
            if trial is None:
                return
            taken = points.taken((other for other in trials if other.state != TrialState.WAITING), overrides_of(trial))
            if points.num_free(taken, given_values(trial)) > 0:
                return
            logger.info("trial %d is not run: its point of the space has been taken", trial.number)
            withdraw(self._study, trial, "never started: its point was taken already")
            self._n_trials += 1

    def _queue(self, trial: FrozenTrial) -> None:
        """Queue the jobs of ``trial`` that have no outcome yet. With several seeds the first runs alone: if it is
        pruned or fails, the others need not run.
        """
        with naming(f"study {self._study.study_name!r}"):
            listed = [with_moved_target(text) for text in overrides_of(trial)]
        require_run_overrides(listed, f"trial {trial.number} of the study {self._study.study_name!r}")
        overrides = (*self._to_overrides(trial.params), *listed)
        has_started = bool(trial.user_attrs.get(STARTED))
        if not has_started:
            self._study._storage.set_trial_user_attr(trial._trial_id, STARTED, True)
        if self._seeds is None:
            subdir = str(trial.number)
            own = self._resuming(overrides, subdir) if has_started else overrides
            self._ready.append(Job(trial.number, own, subdir))
            return
        first_seed_done = outcome_key(self._seeds[0]) in trial.user_attrs
        queued = {job.seed for job in self._ready if job.number == trial.number}
        for seed in self._seeds[1:] if first_seed_done else self._seeds[:1]:
            if outcome_key(seed) not in trial.user_attrs and seed not in queued:
                subdir = f"{trial.number}/{repeat_folder(self._repeated_key, seed)}"
                own = (*overrides, f"{self._repeated_key}={seed}")
                self._ready.append(Job(trial.number, self._resuming(own, subdir) if has_started else own, subdir, seed))

    def _resuming(self, overrides: tuple[str, ...], subdir: str) -> tuple[str, ...]:
        """Return ``overrides`` for a run that goes on where its own folder stands. One that was to begin from another
        run's checkpoint (a promoted trial) still does so until it has saved its own.
        """
        if self._resumable_folder is None or RESUME in overrides:
            return overrides
        begins_elsewhere = any(text.startswith("training.resume=") for text in overrides)
        if begins_elsewhere and not has_whole_checkpoint(self._resumable_folder / subdir):
            return overrides
        return (*overrides, RESUME)
