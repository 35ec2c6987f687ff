"""What ``train.py`` runs: one run, or stages one after the other, each a run of its own in the folder of the whole."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from winnow.config.compose import Stage, composed_job
from winnow.config.plain import Config
from winnow.engine.memory import release_memory
from winnow.engine.stop import StopRequest
from winnow.errors import ConfigError, WinnowError
from winnow.protocols import Tracker
from winnow.run.pipeline_record import read_record, write_record
from winnow.run.record import flat, trial_tags
from winnow.run.rehearsal import rehearse
from winnow.run.result import RunResult
from winnow.run.stages import asked_stages, handed_over, own_overrides, unfinished_stages
from winnow.run.torchrun import place_of, refuse_sweep
from winnow.run.tracker import choose_tracker
from winnow.run.training import Start, how_it_failed, run_in_folder
from winnow.run_folder import PIPELINE_RECORD, sole_owner
from winnow.sweep.current import current_trial, running
from winnow.sweep.stage_trial import StageTrial
from winnow.tracking.provenance import command_line, git_state, source_tags

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED = 75
"""What a run that was told to stop exits with, so that a queue can tell it from a finished (0) and a failed (1) one."""
_ENDED = ("completed", "early_stopped")


def run(cfg: DictConfig) -> float | None:
    """Train as composed, in Hydra's output folder; the best objective (of the last stage), or None where nothing was evaluated.

    Raises WinnowError for what the user must mend. An interrupted single run ends the process with ``EXIT_INTERRUPTED``.
    """
    is_multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    if is_multirun:
        refuse_sweep(["--multirun"])
    command, with_another_stage = composed_job(cfg)
    folder = command.run_folder
    stages = asked_stages(command, with_another_stage)
    with StopRequest() as stop:
        if stages:
            require_objective_of_study(command.config, stages)
            result = run_stages(stages, command.overrides, folder, stop)
            goes_on_by = folder
        else:
            current = current_trial()
            parent = current.study_folder if current is not None else None
            result = run_in_folder(Start(command.config, command.overrides, command.choices, parent), folder, stop)
            goes_on_by = folder / "checkpoints" / "last.pth"
    if result.status == "interrupted":
        logger.info("go on with: training.resume=%s", goes_on_by)
        if not is_multirun:
            raise SystemExit(EXIT_INTERRUPTED)
    return result.objective


def run_stages(stages: Sequence[Stage], overrides: list[str], folder: Path, stop: StopRequest) -> RunResult:
    """Train those of ``stages`` that are not finished, in order, and leave the ``result.json`` of the whole in ``folder``."""
    with sole_owner(folder):
        try:
            stages = handed_over(stages)
            unfinished = prepare(stages, folder)
        except WinnowError as error:
            if not (folder / "result.json").exists():
                RunResult("failed", reason=str(error)).write(folder)
            raise
        (folder / "result.json").unlink(missing_ok=True)
        current = current_trial()
        tracker = choose_tracker(quiet(stages[0].config), folder, current.study_folder if current is not None else None)
        status, reason = "failed", None
        with tracker:
            record_whole(tracker, stages, folder)
            try:
                for number, stage in enumerate(unfinished):
                    if number > 0:
                        leave_behind(unfinished[number - 1])
                    status = run_stage(stage, stages, overrides, folder, stop)
                    if status not in _ENDED:
                        break
            except BaseException as error:
                status, reason = how_it_failed(error)
                if not isinstance(error, KeyboardInterrupt):
                    logger.error("when that is mended, go on with the same command and training.resume=%s", folder)
                raise
            finally:
                result = result_of_whole(status, reason, stages, folder, tracker)
                result.write(folder)
                conclude(tracker, result, folder)
    return result


def prepare(stages: Sequence[Stage], folder: Path) -> list[Stage]:
    """Check all before any is trained, and write down what they begin with; those that are to be trained. Raises ConfigError."""
    unfinished = unfinished_stages(stages, folder)
    if len(unfinished) > 1 and place_of() is not None:
        raise ConfigError(
            f"torchrun can't run a pipeline ({len(unfinished)} stages), its ranks take one job; start it without torchrun and "
            "give training.num_ranks=N, or run its stages one by one"
        )
    if len(unfinished) > 1:
        rehearse(unfinished, folder)
    write_record(stages, folder)
    return unfinished


def require_objective_of_study(config: Config, stages: Sequence[Stage]) -> None:
    """ConfigError where a sweep, which reads its objective off the pipeline's own config, would rank by another than the last
    stage's."""
    searched, last = config["objective"], stages[-1].config["objective"]
    if current_trial() is not None and searched != last:
        raise ConfigError(
            f"objective={searched} of stage={config['stage']['name']} is not that of its last stage {stages[-1].name}, {last}, "
            f"which a sweep is ranked by: let the pipeline's file begin with defaults: [{stages[-1].name}, _self_]"
        )


def run_stage(stage: Stage, stages: Sequence[Stage], overrides: list[str], folder: Path, stop: StopRequest) -> str:
    """Train one stage in its folder; its status."""
    if stop.requested:
        return "interrupted"
    own = folder / stage.name
    own.mkdir(exist_ok=True)
    config = stage.config
    if "parent_run_id" in config["tracking"]:  # that is the pipeline's; the stage's is the pipeline
        config = {**config, "tracking": {**config["tracking"], "parent_run_id": None}}
    logger.info("stage %s (%d of %d) in %s", stage.name, stages.index(stage) + 1, len(stages), own)
    with heard_by_trial(stage, stages):
        return run_in_folder(Start(config, own_overrides(overrides), stage.choices, folder), own, stop).status


def leave_behind(stage: Stage) -> None:
    """The next stage shall find the process as a new one would be, for there it would be resumed."""
    release_memory()
    if stage.config["training"]["compile"]:
        torch.compiler.reset()


@contextlib.contextmanager
def heard_by_trial(stage: Stage, stages: Sequence[Stage]) -> Iterator[None]:
    """In a sweep the trial hears the stage as a part of the whole."""
    current = current_trial()
    if current is None:
        yield
        return
    before = stages[: stages.index(stage)]
    first_epoch = sum(other.config["training"]["max_epochs"] for other in before)
    is_compared = stage.config["objective"] == stages[-1].config["objective"]
    if not is_compared:
        logger.info("stage %s has another objective than the last: it reports nothing and is not pruned", stage.name)
    with running(replace(current, trial=StageTrial(current.trial, first_epoch, is_compared))):
        yield


def result_of_whole(
    status: str, reason: str | None, stages: Sequence[Stage], folder: Path, tracker: Tracker
) -> RunResult:
    """``result.json`` of all stages: the furthest one's numbers, the last one's objective, the sum of the cost."""
    found = {stage.name: read_result(folder / stage.name) for stage in read_record(folder)}
    every = {name: part for name, part in found.items() if part is not None}
    parts = {stage.name: every[stage.name] for stage in stages if stage.name in every}
    furthest = list(parts.values())[-1] if parts else RunResult(status)
    last = parts.get(stages[-1].name)
    cost = {
        key: sum(part.cost.get(key, 0.0) for part in parts.values()) for part in parts.values() for key in part.cost
    }
    return replace(
        furthest,
        status=status,
        reason=reason if reason is not None else furthest.reason,
        objective=last.objective if last is not None else None,
        epochs=sum(part.epochs for part in parts.values()),
        steps=sum(part.steps for part in parts.values()),
        seconds=sum(part.seconds for part in parts.values()),
        cost=cost,
        mlflow_run_id=tracker.run_id,
        stages={name: asdict(part) for name, part in every.items()},
    )


def read_result(folder: Path) -> RunResult | None:
    """What a stage wrote; None where it did not begin, or was killed."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return RunResult(**{field.name: content[field.name] for field in fields(RunResult) if field.name in content})


def quiet(config: Config) -> Config:
    """``config`` without samples of the machine and TensorBoard files: the stages' own runs have them."""
    tracking, silent = config["tracking"], {"system_metrics_seconds": None, "tensorboard": False}
    return {**config, "tracking": tracking | {key: value for key, value in silent.items() if key in tracking}}


def record_whole(tracker: Tracker, stages: Sequence[Stage], folder: Path) -> None:
    """What is tracked of the whole: params that all stages share by their own name, others after the stage's."""
    every = {stage.name: flat(stage.config) for stage in stages}
    shared = {
        key: value
        for key, value in every[stages[0].name].items()
        if all(key in own and own[key] == value for own in every.values())
    }
    own = {
        f"{name}.{key}": value for name, values in every.items() for key, value in values.items() if key not in shared
    }
    tracker.log_params({**shared, **own})
    tracker.set_tags({
        **source_tags(git_state(Path.cwd())), "winnow.command": command_line() or "",
        "winnow.stages": ", ".join(every), **trial_tags(),
    })  # fmt: skip
    tracker.log_artifact(folder / PIPELINE_RECORD)


def conclude(tracker: Tracker, result: RunResult, folder: Path) -> None:
    """The numbers by which pipelines are compared."""
    values = {f"cost/{name}": value for name, value in result.cost.items()}
    if result.objective is not None and result.best is not None:
        values[f"best/{result.best['metric'].removeprefix('val/')}"] = result.objective
    tracker.log_metrics(values, result.steps)
    tracker.log_artifact(folder / "result.json")
    tracker.finish(result.status)
    logger.info("all stages: %s; everything is in %s", result.status, folder)
