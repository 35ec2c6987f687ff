"""A job's task: the user's task function with its trial around it. Ends with an ``Outcome``, never with an exception."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from winnow.config.job_files import write_job_files
from winnow.errors import DivergedError, WinnowError
from winnow.masking import mask_output, referred_to
from winnow.reading import UnreadableError, parse_json
from winnow.sweep.current import CurrentTrial, running
from winnow.sweep.outcome import Outcome, interrupted_by_place
from winnow.sweep.place import trouble_at, trouble_in
from winnow.sweep.trial import StoredTrial, StudyRef, store_outcome, stored_outcome

logger = logging.getLogger(__name__)

_ORPHAN_SECONDS = 120
_OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryExhaustedError")


class TrialTask:
    """Hydra calls it in the job's process with the job's config; ``HydraConfig`` tells which trial it is.

    The outcome is stored on the trial before it is returned, so that it survives the process that waits for it; a failure that
    may go better a second time is not: without that process the next start tries again.
    """

    def __init__(self, task_function: TaskFunction, ref: StudyRef) -> None:
        self._task_function = task_function
        self._ref = ref

    def __call__(self, cfg: DictConfig) -> Outcome:
        mask_output()
        referred_to(self._ref.storage)  # a job that can't find its study must not train for nothing
        job = HydraConfig.get()
        folder = Path(job.runtime.output_dir)
        seed = int(OmegaConf.select(cfg, self._ref.repeated_key)) if self._ref.seeds is not None else None
        with _alone(folder) as had_to_wait:
            done = stored_outcome(self._ref, job.job.num, seed) if had_to_wait else None
            if done is not None:
                return done
            write_job_files(cfg)
            set_others_result_aside(folder, f"{self._ref.name} {job.job.num}")
            return self._outcome(cfg, folder, job.job.num, seed)

    def _outcome(self, cfg: DictConfig, folder: Path, number: int, seed: int | None) -> Outcome:
        began = time.monotonic()
        trial = StoredTrial(self._ref, number, seed, folder)
        name = self._ref.repeated_key.rpartition(".")[2]
        current = CurrentTrial(trial, number, self._ref.name, Path(self._ref.folder), seed, name, self._ref.searched)
        with running(current):
            outcome = self._run(cfg, folder)
        result = _result(folder)
        metrics = result.get("metrics", {})
        objective = (result.get("best") or {}).get("metric")
        if outcome.status == "pruned":
            outcome = replace(outcome, reason=trial.reason or outcome.reason)
        outcome = replace(
            outcome, seed=seed, run_folder=str(folder), seconds=result.get("seconds") or time.monotonic() - began,
            epochs=result.get("epochs") or 0, cost=result.get("cost") or {}, mlflow_run_id=result.get("mlflow_run_id"),
            final_objective=metrics.get(objective), final_map=metrics.get("val/map"), final_loss=_final_loss(metrics),
            pruned_at=result.get("epochs") if outcome.status == "pruned" else None,
        )  # fmt: skip
        if outcome.status != "interrupted" and not outcome.is_retryable:  # neither is the trial's last word
            trial.catch_up()
            store_outcome(self._ref, number, outcome)
        elif outcome.cost:
            trial.spend(outcome.cost)
        return outcome

    def _run(self, cfg: DictConfig, folder: Path) -> Outcome:
        try:
            returned = self._task_function(cfg)
        except KeyboardInterrupt:
            return Outcome("interrupted")
        except optuna.TrialPruned as error:
            return Outcome("pruned", reason=str(error) or None)
        except DivergedError as error:
            return Outcome("diverged", reason=_first_line(error))
        except Exception as error:
            logger.exception("the trial ended with %s", type(error).__name__)
            if type(error).__name__ in _OUT_OF_MEMORY:
                return Outcome("out_of_memory", reason=_first_line(error))
            if (trouble := trouble_in(error) or trouble_at(folder)) is not None:
                return interrupted_by_place(trouble)
            reason = f"{type(error).__name__}: {_first_line(error)}"
            return Outcome("failed", reason=reason, is_retryable=not isinstance(error, WinnowError))
        result = _result(folder)
        status = result.get("status", "completed")
        if status in ("pruned", "interrupted"):
            return Outcome(status, reason=result.get("reason"))
        outcome = self._completed(returned, result)
        if outcome.status == "failed" and (trouble := trouble_at(folder)) is not None:
            return interrupted_by_place(trouble)  # it may have said more than could be written
        return outcome

    def _completed(self, returned: Any, result: dict[str, Any]) -> Outcome:
        if self._ref.metrics is not None:
            known = {
                **result.get("metrics", {}),
                **{f"cost/{key}": value for key, value in result.get("cost", {}).items()},
            }
            missing = [name for name in self._ref.metrics if known.get(name) is None]
            if missing:
                return Outcome("failed", reason=f"the run gave no {missing[0]}; it gave {', '.join(sorted(known))}")
            returned = [known[name] for name in self._ref.metrics]
        several = isinstance(returned, Sequence) and not isinstance(returned, str)
        try:
            values = tuple(float(value) for value in (returned if several else [returned]))
        except (TypeError, ValueError):
            return Outcome("failed", reason=f"the task returned {returned!r}, not a number")
        if len(values) != self._ref.num_objectives:
            reason = f"the task returned {len(values)} values for {self._ref.num_objectives} directions"
            return Outcome("failed", reason=reason)
        if any(math.isnan(value) for value in values):
            return Outcome("diverged", reason=f"the task returned {returned!r}")
        return Outcome("completed", values=values)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the trial's folder; whether that had to be waited for. A worker whose sweep was killed saves, or comes to its end,
    while the next start adopts its trial already."""
    lock = FileLock(folder / ".trial.lock")
    try:
        lock.acquire(timeout=0)
        had_to_wait = False
    except Timeout:
        lock.acquire(timeout=_ORPHAN_SECONDS)
        had_to_wait = True
    try:
        yield had_to_wait
    finally:
        lock.release()


def set_others_result_aside(folder: Path, trial: str) -> None:
    """Rename a ``result.json`` that no job of ``trial`` (the study's name and the trial's number) left in ``folder``: it lay
    there before, or was copied there, and would count as this trial's."""
    mark, result = folder / ".trial", folder / "result.json"
    if mark.is_file() and mark.read_text() == trial:
        return
    if result.exists():
        logger.warning("%s is not of this trial; it is now %s.before", result, result.name)
        result.replace(result.with_name(f"{result.name}.before"))
    mark.write_text(trial)


def _result(folder: Path) -> dict[str, Any]:
    """Return what a winnow run said of itself; empty for another program's run, and where a power cut tore the file. Raises
    OSError where the disk is in trouble."""
    try:
        found = parse_json((folder / "result.json").read_bytes())
    except UnreadableError:
        return {}
    except OSError as error:
        if trouble_in(error) is not None:
            raise
        return {}
    return found if isinstance(found, dict) else {}


def _final_loss(metrics: dict[str, float]) -> float | None:
    return metrics.get("val/loss", metrics.get("train/loss"))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
