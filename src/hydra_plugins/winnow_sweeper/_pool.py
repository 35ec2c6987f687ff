"""One warm worker process per slot on this machine, replaced when it dies; what happens in a job happens to that job alone."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pipe, spawn
from multiprocessing.connection import wait
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton

from hydra_plugins.winnow_sweeper._devices import Lease
from hydra_plugins.winnow_sweeper._job import CLOSING_SECONDS, MAX_FAILED_STARTS, Finished, Job, require_free
from hydra_plugins.winnow_sweeper._output import file_for_output
from hydra_plugins.winnow_sweeper._single_run import Work, describe_exit, finished, interrupted
from hydra_plugins.winnow_sweeper._worker import READY, Start, job_key
from winnow.errors import WinnowError

LEAVING_SECONDS = 5.0
_NOT_BEGUN = "asked to stop before the run began"


class WorkerProcess:
    """The sweep's side of a worker: in a session of its own, so that the terminal's Ctrl-C does not reach it."""

    def __init__(self, start: Start, lease: Lease | None) -> None:
        self.jobs, jobs = Pipe()
        control, self._control = Pipe(duplex=False)
        self._output = file_for_output() if start.captures_output else None
        fds = [jobs.fileno(), control.fileno()]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _command(*fds)],
            env={**os.environ, **(lease.environment if lease else {})},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=[*fds, lease.fd]
            if lease
            else fds,  # a device stays leased while a worker outlives the sweep's process
            start_new_session=True,
        )
        jobs.close()
        control.close()
        # The pipes' ends don't tell of a death in time: loader processes inherit them.
        self.death = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None
        self.is_ready = False
        self.num_jobs = 0
        self.last_words = ""
        with contextlib.suppress(BrokenPipeError):
            self.jobs.send(start)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def handles(self) -> list[Any]:
        return [self.jobs] if self.death is None else [self.jobs, self.death]

    def messages(self) -> tuple[list[Any], bool]:
        """Return what it has said since, and whether it is dead."""
        is_dead = self.has_left()
        said = []
        try:
            while self.jobs.poll():
                said.append(self.jobs.recv())
        except (EOFError, ConnectionResetError):
            return said, True
        return said, is_dead

    def send(self, job: Job) -> None:
        with contextlib.suppress(BrokenPipeError):  # its death is about to be seen
            self.jobs.send(job)

    def interrupt(self, job: Job) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._control.send(job_key(job))

    def dismiss(self) -> None:
        """Tell the worker that there are no more jobs: it ends by itself."""
        self.jobs.close()

    def has_left(self) -> bool:
        # Not reaped yet: until then nobody else can get its number, and `kill` ends its group and no other.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def await_death(self, seconds: float) -> None:
        if self.death is not None:
            wait([self.death], timeout=seconds)

    def kill(self) -> int:
        """End it with all its children but those that left its session (the tracking uploader); its return code."""
        if self._process.returncode is not None:
            return self._process.returncode
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self.jobs.close()
        self._control.close()
        if self.death is not None:
            os.close(self.death)
        self.death = None
        self.last_words = self._read_last_words()
        return code

    def _read_last_words(self) -> str:
        if self._output is None:
            return "see above"
        with self._output as output:
            output.seek(0)
            return output.read()[-2000:].decode(errors="replace").strip() or "it said nothing"


class _Slot:
    def __init__(self, start_worker: functools.partial[WorkerProcess]) -> None:
        self.start_worker = start_worker
        self.worker = start_worker()
        self.job: Job | None = None
        self.is_sent = False
        self.num_failed_starts = 0


class PoolSlots:
    """``Slots`` of worker processes, with a device each where there are ``leases``.

    ``warm_up`` names modules to import before the first job. A worker is replaced after ``recycle_after`` jobs (None: never).
    A job's output goes to ``output.log`` in its folder, or with ``shows_output`` to the sweep's own.
    """

    def __init__(
        self,
        work: Work,
        size: int,
        leases: Sequence[Lease] | None = None,
        warm_up: tuple[str, ...] = (),
        recycle_after: int | None = None,
        shows_output: bool = False,
    ) -> None:
        self.size = size
        self._leases = list(leases or ())
        self._recycle_after = recycle_after
        self._finished: list[Finished] = []
        self._leaving: list[tuple[WorkerProcess, float]] = []
        start = Start(
            _how_to_import_main(), _pickled(work), warm_up, str(work.config.hydra.sweep.dir), not shows_output
        )
        self._slots: list[_Slot] = []
        try:
            for number in range(size):
                lease = self._leases[number] if self._leases else None
                self._slots.append(_Slot(functools.partial(WorkerProcess, start, lease)))
        except BaseException:
            self.close(at_once=True)
            raise

    @property
    def worker_pids(self) -> list[int]:
        return [slot.worker.pid for slot in self._slots]

    def num_free(self) -> int:
        return sum(slot.job is None for slot in self._slots)

    def submit(self, job: Job) -> None:
        require_free(self, job)
        free = [slot for slot in self._slots if slot.job is None]
        slot = max(free, key=lambda slot: slot.worker.is_ready)
        slot.job, slot.is_sent = job, False
        _hand_over(slot)

    def wait(self, seconds: float) -> list[Finished]:
        deadline = time.monotonic() + seconds
        while True:
            remaining = 0 if self._finished else max(0.0, deadline - time.monotonic())
            handles = [handle for slot in self._slots for handle in slot.worker.handles]
            is_news = bool(wait(handles, timeout=remaining)) if handles else False
            for slot in self._slots:
                self._attend(slot)
            self._see_off()
            if self._finished or not is_news:
                ended, self._finished = self._finished, []
                return ended

    def interrupt(self, numbers: set[int] | None = None) -> None:
        for slot in self._slots:
            job = slot.job
            if job is None or (numbers is not None and job.number not in numbers):
                continue
            if slot.is_sent:
                slot.worker.interrupt(job)
            else:
                slot.job = None
                self._finished.append(finished(job, interrupted(_NOT_BEGUN)))

    def close(self, at_once: bool = False) -> None:
        """Give running jobs half a minute to save, then end them; ``wait(0)`` still returns what they came to."""
        try:
            if not at_once:
                self._finish_politely()
        finally:
            for worker in [*(slot.worker for slot in self._slots), *(worker for worker, _ in self._leaving)]:
                worker.kill()
            self._slots, self._leaving = [], []
            for lease in self._leases:
                lease.release()

    def _finish_politely(self) -> None:
        self.interrupt()
        deadline = time.monotonic() + CLOSING_SECONDS
        ended: list[Finished] = []
        while any(slot.job for slot in self._slots) and time.monotonic() < deadline:
            ended += self.wait(min(1.0, deadline - time.monotonic()))
        self._finished = ended + self._finished
        for slot in self._slots:
            slot.worker.dismiss()
        deadline = time.monotonic() + LEAVING_SECONDS
        while (
            any(not slot.worker.has_left() for slot in self._slots if slot.worker.is_ready)
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)

    def _attend(self, slot: _Slot) -> None:
        said, is_dead = slot.worker.messages()
        for message in said:
            if message == READY:
                slot.worker.is_ready, slot.num_failed_starts = True, 0
                _hand_over(slot)
            else:
                self._finished.append(message)
                slot.job, slot.worker.is_ready = None, False  # until it has cleaned up
                slot.worker.num_jobs += 1
        if is_dead:
            self._replace_dead(slot)
        elif slot.worker.num_jobs == self._recycle_after:
            slot.worker.dismiss()
            self._leaving.append((slot.worker, time.monotonic() + LEAVING_SECONDS))
            slot.worker = slot.start_worker()

    def _replace_dead(self, slot: _Slot) -> None:
        has_started = slot.worker.is_ready or slot.worker.num_jobs > 0
        slot.worker.await_death(1.0)  # its pipe is closed a moment before, and its own exit code tells more than ours
        code = slot.worker.kill()
        if slot.job is not None and slot.is_sent:
            self._finished.append(Finished(slot.job, death=describe_exit(code)))
            slot.job = None
        if not has_started:
            slot.num_failed_starts += 1
            if slot.num_failed_starts == MAX_FAILED_STARTS:
                self._slots.remove(slot)
                raise WinnowError(
                    f"worker processes of the sweep die as they start ({describe_exit(code)}): {slot.worker.last_words}"
                )
        slot.worker = slot.start_worker()
        slot.is_sent = False

    def _see_off(self) -> None:
        for entry in list(self._leaving):
            worker, deadline = entry
            if worker.has_left() or time.monotonic() > deadline:
                worker.kill()
                self._leaving.remove(entry)


def _hand_over(slot: _Slot) -> None:
    """Send a job only to a worker that is ready, so that one that dies before has lost nothing."""
    if slot.job is not None and not slot.is_sent and slot.worker.is_ready:
        slot.is_sent = True
        slot.worker.send(slot.job)


def _pickled(work: Work) -> bytes:
    data: bytes = cloudpickle.dumps((work, Singleton.get_state()))
    return data


def _how_to_import_main() -> dict[str, Any]:
    """Return what a worker needs to import the user's script, as multiprocessing does it, so that what the script sets
    up is there.
    """
    main = spawn.get_preparation_data("worker")
    del main["authkey"]  # can't be pickled, and nothing here listens
    return {key: value for key, value in main.items() if key not in ("name", "log_to_stderr", "log_level")}


def _command(*fds: int) -> str:
    arguments = ", ".join(str(fd) for fd in fds)
    return (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from hydra_plugins.winnow_sweeper._worker import main; main({arguments})"
    )
