"""The worker process of a slot: imports once, then runs the jobs that come through its pipe, each as if it were the first."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing import spawn
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton

from hydra_plugins.winnow_sweeper._clean_slate import CleanSlate
from hydra_plugins.winnow_sweeper._interrupts import Interrupts
from hydra_plugins.winnow_sweeper._job import Finished, Job
from hydra_plugins.winnow_sweeper._output import output_to
from hydra_plugins.winnow_sweeper._single_run import Work, compose, failed, finished, guarded, interrupted, run
from winnow.masking import mask_output
from winnow.sweep.outcome import Outcome

READY = "ready"
GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Start:
    """Told to a worker once: ``shared`` is a pickled (Work, Hydra's singletons), ``main`` how to import the user's script."""

    main: dict[str, Any]
    shared: bytes
    warm_up: tuple[str, ...]
    folder: str
    captures_output: bool


def job_key(job: Job) -> str:
    return f"{job.name}/{job.attempt}"


def main(jobs_fd: int, control_fd: int) -> None:
    """Run jobs until the sweep closes the pipe or is gone."""
    jobs, control = Connection(jobs_fd), Connection(control_fd)
    mask_output()
    faulthandler.enable(2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what a crash would leave in the buffer is lost
    interrupts = Interrupts()
    start: Start = jobs.recv()
    threading.Thread(target=_listen, args=(control, interrupts), name="control", daemon=True).start()
    spawn.prepare(start.main)
    for name in start.warm_up:
        importlib.import_module(name)
    cloudpickle.loads(start.shared)  # what it refers to is imported now
    Plugins.instance()
    CleanSlate().restore()  # torch imports much at the first use of some switches
    gc.freeze()  # so that collecting after a job looks at the job's objects only
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        jobs.send(READY)
        while True:
            job, slate = jobs.recv(), CleanSlate()
            jobs.send(_run_job(job, start, interrupts))
            interrupts.install()
            slate.restore()  # an error ends the process, and its slot gets a new one: so after a CUDA assert
            jobs.send(READY)


def _listen(control: Connection, interrupts: Interrupts) -> None:
    """Pass on requests to stop; the end of the pipe is the end of the sweep's process, however it died."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            interrupts.request(control.recv())
    interrupts.request_current()
    deadline = time.monotonic() + GRACE_SECONDS
    while interrupts.is_busy and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(os.getpgid(0), signal.SIGKILL)  # loader processes too; the tracking uploader has a session of its own


def _run_job(job: Job, start: Start, interrupts: Interrupts) -> Finished:
    with interrupts.during(job_key(job)):
        try:
            folder = Path(start.folder, job.subdir)
            folder.mkdir(parents=True, exist_ok=True)
            with output_to(folder / "output.log") if start.captures_output else contextlib.nullcontext():
                finish = guarded(job, lambda: _compose_and_run(job, start.shared, interrupts))
        except OSError as error:
            finish = finished(job, failed(error))
    return finish


def _compose_and_run(job: Job, shared: bytes, interrupts: Interrupts) -> Outcome:
    work = _fresh_work(shared)
    config = compose(work, job)
    if interrupts.is_asked:
        return interrupted("asked to stop before the run began")
    return run(work, config)


def _fresh_work(shared: bytes) -> Work:
    """Return a copy that no earlier job has touched, with Hydra's singletons as they are in the sweep's process."""
    work, singletons = cloudpickle.loads(shared)
    singletons["instances"][Plugins] = Plugins.instance()  # else each job would look for the plugins again
    Singleton.set_state(singletons)
    return work
