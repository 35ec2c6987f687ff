"""Hydra's launchers fed one trial at a time: each slot is a thread that waits for one launch."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import logging
import os
import queue
import shlex
import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf, open_dict, read_write

from hydra_plugins.winnow_sweeper._cluster_task import ClusterTask
from hydra_plugins.winnow_sweeper._devices import Lease
from hydra_plugins.winnow_sweeper._job import CLOSING_SECONDS, MAX_FAILED_STARTS, Finished, Job, require_free
from hydra_plugins.winnow_sweeper._notes import Notes
from hydra_plugins.winnow_sweeper._secrets import environment_of_jobs, forget_files, references_in
from hydra_plugins.winnow_sweeper._single_run import Work, as_outcome, failed, finished, in_one_line, interrupted
from hydra_plugins.winnow_sweeper._slurm import SlurmQueue, ask_to_stop, cancel
from winnow.errors import WinnowError
from winnow.sweep.outcome import interrupted_by_place
from winnow.sweep.place import trouble_at

logger = logging.getLogger(__name__)

ENDING_SECONDS = 5.0

# Exceptions that say: the process is gone, and nobody knows what it came to. By name, for none of these packages need be there.
_VANISHED = {
    "UncompletedJobError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "LocalRayletDiedError", "RaySystemError",
    "TerminatedWorkerError", "BrokenProcessPool", "TaskCancelledError", "TaskUnschedulableError",
}  # fmt: skip

# submitit's words for an exception in the job's own process: a config that can't be composed is the trial's affair.
_COMPOSING = "failed during processing"


@dataclass(frozen=True, eq=False)
class _Flight:
    """One submission of a job. ``key`` names it among all of this sweep's, ``slurm_name`` in SLURM's queue."""

    job: Job
    key: str
    slurm_name: str


class LauncherSlots:
    """``Slots`` on whatever ``hydra/launcher`` is; its jobs read and write a folder that this process shares with them."""

    def __init__(self, work: Work, size: int, leases: Sequence[Lease] | None = None) -> None:
        self.size = size
        self._work = work
        self._leases = list(leases or ())
        self._references = references_in(work.config)
        forget_files(work.hydra_context.config_loader)
        self._target = str(work.config.hydra.launcher._target_)
        self._tag = f"winnow-{uuid.uuid4().hex[:8]}"
        study = Path(str(work.config.hydra.sweep.dir)).absolute()
        study.mkdir(parents=True, exist_ok=True)
        self._notes = Notes.new(study)
        self._answers: queue.Queue[tuple[int, _Flight, Finished]] = queue.Queue()
        self._finished: list[Finished] = []
        self._running: dict[int, _Flight] = {}
        self._asked: set[_Flight] = set()
        self._answered: set[str] = set()
        self._num_failed_starts, self._last_words = 0, ""
        self._num_submitted: Counter[str] = Counter()
        self._slurm = SlurmQueue(self._tag) if self._target.endswith(".SlurmLauncher") else None
        self._started_ray = self._start_ray()
        for name in ("hydra_submitit_launcher", "hydra_ray_launcher"):
            logging.getLogger(f"hydra_plugins.{name}").setLevel(logging.WARNING)  # three lines per trial otherwise

    def num_free(self) -> int:
        return self.size - len(self._running)

    def submit(self, job: Job) -> None:
        require_free(self, job)
        if self._num_failed_starts >= MAX_FAILED_STARTS:
            raise WinnowError(
                f"jobs of hydra/launcher ({self._target.rpartition('.')[2]}) end before they start, "
                f"{self._num_failed_starts} in a row, the last one with: {self._last_words}"
            )
        key = f"{job.name}-{self._num_submitted[job.name]}"
        self._num_submitted[job.name] += 1
        flight = _Flight(job, key, f"{self._tag}-{key}" if self._slurm is not None else "")
        slot = next(slot for slot in range(self.size) if slot not in self._running)
        # Built here: two threads that resolve one config get in each other's way.
        launcher = self._launcher(slot, flight)
        self._notes.submit(key, flight.slurm_name)
        self._running[slot] = flight
        context = contextvars.copy_context()  # Hydra keeps what may be executed in a context variable
        arguments = (self._launch, slot, flight, launcher)
        threading.Thread(target=context.run, args=arguments, name=f"trial {job.name}", daemon=True).start()

    def wait(self, seconds: float) -> list[Finished]:
        with contextlib.suppress(queue.Empty):
            self._take(*self._answers.get(timeout=max(0.001, 0.0 if self._finished else seconds)))
            while True:
                self._take(*self._answers.get_nowait())
        self._look_for_lost()
        ended, self._finished = self._finished, []
        return ended

    def interrupt(self, numbers: set[int] | None = None) -> None:
        for flight in self._running.values():
            if (numbers is None or flight.job.number in numbers) and flight not in self._asked:
                self._asked.add(flight)
                self._notes.ask_to_stop(flight.key)
                if flight.slurm_name:
                    ask_to_stop(flight.slurm_name)

    def close(self, at_once: bool = False) -> None:
        """Give running jobs half a minute to save, then end them; ``wait(0)`` still returns what they came to."""
        self.interrupt()
        self._await_all(0 if at_once else CLOSING_SECONDS)
        for flight in self._running.values():
            if flight.slurm_name:
                cancel(flight.slurm_name, at_once)
        self._kill_processes_here()
        self._await_all(ENDING_SECONDS)  # Ray aborts the process when it is shut down under a thread that waits for it
        if self._slurm is not None:
            self._slurm.cancel_rest(self._answered)
        if self._started_ray:
            import ray

            ray.shutdown()
        shutil.rmtree(self._notes.folder, ignore_errors=True)
        for lease in self._leases:
            lease.release()

    def _await_all(self, seconds: float) -> None:
        deadline, ended = time.monotonic() + seconds, []
        while self._running and time.monotonic() < deadline:
            ended += self.wait(0.05)
        self._finished = ended + self._finished

    def _take(self, slot: int, flight: _Flight, finish: Finished) -> None:
        if self._running.get(slot) is not flight:
            return  # given up as lost before
        del self._running[slot]
        self._finished.append(finish)
        if (
            finish.outcome is not None
            and finish.outcome.status == "interrupted"
            and self._notes.is_unstarted(flight.key)
        ):
            self._num_failed_starts += flight not in self._asked and not finish.outcome.is_of_place
            self._last_words = finish.outcome.reason or ""
        else:
            self._num_failed_starts = 0
        if finish.outcome is not None and finish.outcome.status != "interrupted":
            self._answered.add(flight.slurm_name)
        elif flight.slurm_name:
            cancel(flight.slurm_name)  # it may be preempted: then SLURM would start it again, and so do we

    def _look_for_lost(self) -> None:
        if self._slurm is None:
            return
        names = {flight.slurm_name for flight in self._running.values()}
        lost = self._slurm.lost(names, is_in_hurry=any(flight in self._asked for flight in self._running.values()))
        for slot, flight in list(self._running.items()):
            if flight.slurm_name in lost:
                self._take(slot, flight, self._ended_without_answer(flight, f"SLURM says {lost[flight.slurm_name]}"))

    def _launch(self, slot: int, flight: _Flight, launcher: Launcher) -> None:
        job = flight.job
        try:
            overrides = [*job.overrides, *self._references, f"hydra.sweep.subdir={job.subdir}"]
            (job_return,) = launcher.launch([overrides], initial_job_idx=job.number)
            finish = finished(job, as_outcome(job_return.return_value))
        except BaseException as error:  # noqa: BLE001 - a thread's exception would vanish, and its slot with it
            finish = self._failure(flight, error)
        self._answers.put((slot, flight, finish))

    def _launcher(self, slot: int, flight: _Flight) -> Launcher:
        environment = dict(self._leases[slot].environment) if self._leases else {}
        if self._is_ray:  # its workers may have been there before; what they are told travels in memory
            environment |= environment_of_jobs()
        task = ClusterTask(self._work.task, self._notes, flight.key, environment, os.getpid(), self.size == 1)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._work.hydra_context, task_function=task, config=copy.deepcopy(self._work.config)
        )
        self._name_jobs(launcher, flight)
        if self._is_ray:
            _disable_ray_retries(launcher)
        return launcher

    def _name_jobs(self, launcher: Launcher, flight: _Flight) -> None:
        """Give submitit's jobs a name to cancel by, a folder each, and controllers that a terminal's Ctrl-C does not reach."""
        params: Any = getattr(launcher, "params", None)
        if isinstance(params, dict) and "submitit_folder" in params:
            params["name"] = flight.slurm_name or self._tag
            if self._target.endswith(".LocalLauncher"):
                # Its controller would pass the SIGINT on and a second later kill the run that is saving. And it fails where
                # it starts faster than we make the job's folder, which is named for the shell's process.
                folder = str(params["submitit_folder"]).split("%j")
                wait = (
                    f"for i in $(seq 100); do [ -d {'$$'.join(map(shlex.quote, folder))} ] && break || sleep 0.1; done"
                )
                params["setup"] = ["trap '' INT", f": {self._tag}", wait]

    def _failure(self, flight: _Flight, error: BaseException) -> Finished:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if flight in self._asked or kinds & _VANISHED or not isinstance(error, Exception):
            return self._ended_without_answer(flight, in_one_line(error)[:500])
        logger.error("trial %s: %s", flight.job.name, error)
        outcome = failed(error)
        return finished(flight.job, replace(outcome, reason=(outcome.reason or "")[-500:]))

    def _ended_without_answer(self, flight: _Flight, why: str) -> Finished:
        """Return how the job ended: asked to, or unseen, or it never began (which is not its fault), or it died."""
        if flight in self._asked:
            return finished(flight.job, interrupted(f"ended when asked to stop: {why}"))
        if (outcome := self._notes.outcome(flight.key)) is not None:
            return finished(flight.job, outcome)
        trouble = trouble_at(self._notes.folder)
        if trouble is not None:
            return finished(flight.job, interrupted_by_place(f"{why}; {trouble}"))
        if self._notes.is_unstarted(flight.key) and _COMPOSING not in why:
            logger.warning("trial %s did not start: %s", flight.job.name, why)
            return finished(flight.job, interrupted(why))
        return Finished(flight.job, death=why)

    def _kill_processes_here(self) -> None:
        """Kill what our jobs left running here, with its children, but for what has left the session (the uploader)."""
        for flight in self._running.values():
            pid = self._notes.pid_here(flight.key)
            if pid is not None and pid != os.getpid():
                _kill_tree(pid)
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if self._tag in " ".join(process.cmdline()):
                    _kill_tree(process.pid)

    @property
    def _is_ray(self) -> bool:
        return self._target.endswith("hydra_ray_launcher.ray_launcher.RayLauncher")

    def _start_ray(self) -> bool:
        """Start Ray in this thread: started from a job's, the first job is lost and a minute spent."""
        if not self._is_ray:
            return False
        import ray
        from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray

        was_there = ray.is_initialized()
        init = self._work.config.hydra.launcher.ray.init
        start_ray(OmegaConf.create({"log_to_driver": False, **init}))  # a trial's output is in its folder
        return not was_there


def _disable_ray_retries(launcher: Any) -> None:
    """Disable Ray's retries (a dead task runs up to three times more, unasked) and its sharing of processes by tasks."""
    with read_write(launcher.ray_cfg), open_dict(launcher.ray_cfg):
        launcher.ray_cfg.remote = OmegaConf.merge({"max_retries": 0, "max_calls": 1}, launcher.ray_cfg.remote)


def _kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        session = os.getsid(pid)
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == session:
                    process.send_signal(signal.SIGKILL)
