"""One slot inside the sweep's own process, where a debugger can stop: ``n_jobs=1`` with ``in_process=true``."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Sequence

from hydra.core.utils import configure_log

from hydra_plugins.winnow_sweeper._clean_slate import CleanSlate
from hydra_plugins.winnow_sweeper._devices import Lease
from hydra_plugins.winnow_sweeper._job import Finished, Job, require_free
from hydra_plugins.winnow_sweeper._single_run import Work, compose, finished, guarded, interrupted, run


class InProcessSlots:
    """A job runs inside ``wait``. Its output is the sweep's; Ctrl-C is the run's own affair and comes back as
    ``interrupted``."""

    size = 1

    def __init__(self, work: Work, leases: Sequence[Lease] | None = None) -> None:
        self._work = work
        self._leases = list(leases or ())
        for lease in self._leases:
            os.environ.update(lease.environment)
        self._job: Job | None = None
        self._is_running = False
        self._finished: list[Finished] = []
        gc.freeze()  # so that collecting after a job looks at the job's objects only

    def num_free(self) -> int:
        return int(self._job is None)

    def submit(self, job: Job) -> None:
        require_free(self, job)
        self._job = job

    def wait(self, seconds: float) -> list[Finished]:
        """Run the job to its end, however long it takes, and return it: there is nobody else who could wait."""
        del seconds
        if self._job is not None:
            self._finished.append(self._run(self._job))
            self._job = None
        ended, self._finished = self._finished, []
        return ended

    def interrupt(self, numbers: set[int] | None = None) -> None:
        job = self._job
        if job is None or (numbers is not None and job.number not in numbers):
            return
        if not self._is_running:
            self._finished.append(finished(job, interrupted("asked to stop before the run began")))
            self._job = None
        elif callable(signal.getsignal(signal.SIGUSR1)):  # else nobody listens, and it would end the process
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            signal.raise_signal(signal.SIGINT)

    def close(self, at_once: bool = False) -> None:
        del at_once
        gc.unfreeze()
        for lease in self._leases:
            lease.release()

    def _run(self, job: Job) -> Finished:
        slate, hydra = CleanSlate(), self._work.config.hydra
        self._is_running = True
        try:
            return guarded(job, lambda: run(self._work, compose(self._work, job)))
        finally:
            self._is_running = False
            slate.restore()
            configure_log(
                hydra.hydra_logging, hydra.verbose, execution_whitelist=self._work.hydra_context.execution_whitelist
            )
