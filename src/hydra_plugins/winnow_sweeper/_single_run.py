"""One job as Hydra's basic launcher would run exactly one: composed, run in its folder, and what came of it as a fact."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from hydra_plugins.winnow_sweeper._job import Finished, Job
from winnow.sweep.outcome import Outcome, interrupted_by_place
from winnow.sweep.place import trouble_in

TrialTask = Callable[[DictConfig], Outcome]


@dataclass(frozen=True)
class Work:
    """What all jobs of a sweep share: what Hydra gave the sweeper, with the task that gives an ``Outcome``."""

    hydra_context: HydraContext
    task: TrialTask
    config: DictConfig


def compose(work: Work, job: Job) -> DictConfig:
    """Compose the job's config. Raises what Hydra raises if an override is bad."""
    setup_globals()
    config = work.hydra_context.config_loader.load_sweep_config(work.config, list(job.overrides))
    with open_dict(config):
        config.hydra.job.id = job.name
        config.hydra.job.num = job.number
        config.hydra.sweep.subdir = job.subdir
    return config


def run(work: Work, config: DictConfig) -> Outcome:
    """Return the task's outcome. Raises what went wrong around the task: a config that does not resolve, a folder that
    can't be made.
    """
    job_return = run_job(
        hydra_context=work.hydra_context,
        task_function=work.task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    return as_outcome(job_return.return_value)


def as_outcome(value: Any) -> Outcome:
    if not isinstance(value, Outcome):
        raise TypeError(f"a trial's task must return an Outcome, got {value!r}")
    return value


def guarded(job: Job, act: Callable[[], Outcome]) -> Finished:
    """Return ``act``'s outcome, or what its exception means; a failure's traceback goes to standard error."""
    try:
        return finished(job, act())
    except KeyboardInterrupt:
        return finished(job, interrupted("stopped outside of the run's own care"))
    except SystemExit as error:
        return Finished(job, death=describe_exit(exit_code(error)))
    except Exception as error:  # noqa: BLE001 - whatever one job does, the sweep goes on
        with contextlib.suppress(OSError):  # a full disk
            traceback.print_exc(file=sys.stderr)
        return finished(job, failed(error))


def finished(job: Job, outcome: Outcome) -> Finished:
    return Finished(job, outcome if outcome.seed is not None else replace(outcome, seed=job.seed))


def failed(error: Exception) -> Outcome:
    """Return what an error outside of the run's own care means."""
    trouble = trouble_in(error)
    return Outcome("failed", reason=in_one_line(error)) if trouble is None else interrupted_by_place(trouble)


def interrupted(reason: str) -> Outcome:
    return Outcome("interrupted", reason=reason)


def in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def exit_code(error: SystemExit) -> int:
    """Return the code a process would have ended with: a message means 1, as for the interpreter."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def describe_exit(code: int) -> str:
    """Put a return code of ``subprocess`` in words."""

    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
