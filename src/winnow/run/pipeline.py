"""What ``train.py`` runs: one run, or stages one after the other, each a run of its own in the folder of the whole."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from winnow.config.compose import job_command
from winnow.config.from_file import trust_overrides
from winnow.config.job_files import write_job_files
from winnow.config.plain import Config
from winnow.engine.loop import best_names
from winnow.engine.memory import release_memory
from winnow.engine.stop import StopRequest
from winnow.errors import EXIT_INTERRUPTED, ConfigError
from winnow.protocols import Tracker
from winnow.reading import UnreadableError, as_record, parse_json
from winnow.report.pipeline import write_pipeline_report
from winnow.run.pipeline_record import read_record, write_record
from winnow.run.plan import RunPlan
from winnow.run.record import flat, trial_tags
from winnow.run.rehearsal import rehearse
from winnow.run.resolve import resolve, unfinished
from winnow.run.result import RunResult
from winnow.run.torchrun import place_of, refuse_sweep
from winnow.run.tracked import log_files, pipeline_tags, with_pipeline_name
from winnow.run.tracker import choose_tracker, log_page
from winnow.run.training import how_it_failed, recording_refusal, train
from winnow.run_folder import PIPELINE_RECORD, sole_owner
from winnow.sweep.current import current_trial, running
from winnow.sweep.stage_trial import StageTrial
from winnow.tracking.provenance import command_line, git_state, source_tags

logger = logging.getLogger(__name__)

_ENDED = ("completed", "early_stopped")


def run(cfg: DictConfig) -> float | None:
    """Train as composed, in Hydra's output folder. Returns the best objective (of the last stage), None where nothing was
    evaluated.

    Raises WinnowError for what the user must mend. An interrupted single run ends the process with ``EXIT_INTERRUPTED``.
    """
    is_multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    if is_multirun:
        refuse_sweep(["--multirun"])
    command = job_command(cfg)
    require_right_mode(command.choices, is_multirun)
    folder = command.run_folder
    with StopRequest() as stop, sole_owner(folder):
        if current_trial() is None:  # of a trial the sweeper writes them
            write_job_files(cfg)
        with recording_refusal(folder):
            plans = resolve(command)
        if plans[0].settings.stage.is_alone:
            result = train(plans[0], stop)
            goes_on_by = folder / "checkpoints" / "last.pth"
        else:
            if current_trial() is not None:
                require_objective_of_last(command.config, plans)
            result = run_stages(plans, folder, stop)
            goes_on_by = folder
    if current_trial() is None:
        log_page(folder)
    if result.status == "interrupted":
        logger.info("go on with: %s", " ".join([f"training.resume={goes_on_by}", *trust_overrides(command.overrides)]))
        if not is_multirun:
            raise SystemExit(EXIT_INTERRUPTED)
    return result.objective


def require_right_mode(choices: Mapping[str, str], is_multirun: bool) -> None:
    """Raise ConfigError for a sweep that was started as a single run, or by a sweeper that knows nothing of trials."""
    if not is_multirun and "sweep" in choices:
        raise ConfigError(f"+sweep={choices['sweep']} is a search and this is a single run; start it with -m")
    if is_multirun and current_trial() is None:
        raise ConfigError(
            "this sweeper only starts runs one after the other: none is pruned, resumed or compared; add hydra/sweeper=winnow"
        )


def run_stages(plans: Sequence[RunPlan], folder: Path, stop: StopRequest) -> RunResult:
    """Train those of ``plans`` that are not finished, in order, and leave the ``result.json`` of the whole in ``folder``."""
    with recording_refusal(folder):
        left = prepare(plans, folder)
    (folder / "result.json").unlink(missing_ok=True)
    current = current_trial()
    config = with_pipeline_name(without_samples(plans[0]), plans)
    tracker = choose_tracker(config, folder, current.study_folder if current is not None else None)
    status, reason = "failed", None
    with tracker:
        record_whole(tracker, plans, folder)
        try:
            for number, plan in enumerate(left):
                if number > 0:
                    reset_process(left[number - 1])
                status = run_stage(plan, plans, stop)
                if status not in _ENDED:
                    break
        except BaseException as error:
            status, reason = how_it_failed(error)
            if not isinstance(error, KeyboardInterrupt):
                logger.error("when that is mended, go on with the same command and training.resume=%s", folder)
            raise
        finally:
            result = result_of_whole(status, reason, plans, folder, tracker)
            result.write(folder)
            if plans[-1].settings.report and current is None and status in _ENDED:
                write_page(tracker, result, folder)
            tracker.set_tags(pipeline_tags(plans, folder, result))
            conclude(tracker, result, folder)
    return result


def write_page(tracker: Tracker, result: RunResult, folder: Path) -> None:
    """Write the pipeline's page and track it; whatever goes wrong is a warning."""
    try:
        page = write_pipeline_report(folder, asdict(result))
    except Exception as error:  # noqa: BLE001
        logger.warning("no page about the pipeline: %s: %s", type(error).__name__, error)
        return
    tracker.log_artifact(page)
    logger.info("a page about the pipeline: %s", page.absolute())


def prepare(plans: Sequence[RunPlan], folder: Path) -> list[RunPlan]:
    """Check all before any is trained, write down what they begin with, and return those that are to be trained. Raises
    WinnowError."""
    left = unfinished(plans)
    if len(left) > 1 and place_of() is not None:
        raise ConfigError(
            f"torchrun can't run a pipeline ({len(left)} stages), its ranks take one job; start it without torchrun and "
            "give training.num_ranks=N, or run its stages one by one"
        )
    if len(left) > 1:
        rehearse(left)
    write_record(plans, folder)
    return left


def require_objective_of_last(config: Config, plans: Sequence[RunPlan]) -> None:
    """Raise ConfigError where a sweep, which reads its objective off the pipeline's own config, would rank by another than the
    last stage's."""
    searched, last = config["objective"], plans[-1].config["objective"]
    if searched != last:
        raise ConfigError(
            f"objective={searched} of stage={config['stage']['name']} is not that of its last stage {plans[-1].name}, {last}, "
            f"which a sweep is ranked by: let the pipeline's file begin with defaults: [{plans[-1].name}, _self_]"
        )


def run_stage(plan: RunPlan, plans: Sequence[RunPlan], stop: StopRequest) -> str:
    """Train one stage in its folder and return its status."""
    if stop.requested:
        return "interrupted"
    plan.folder.mkdir(exist_ok=True)
    if "parent_run_id" in plan.settings.tracking:  # the stage's parent is the pipeline's run
        plan = plan.with_values("tracking", parent_run_id=None)
    logger.info(
        "stage %s (%d of %d) in %s", plan.name, [p.name for p in plans].index(plan.name) + 1, len(plans), plan.folder
    )
    with reporting_to_trial(plan, plans):
        return train(plan, stop).status


def reset_process(plan: RunPlan) -> None:
    """Free memory and drop the compiled programs of ``plan``, so that the next stage runs as in a fresh process, where a resume
    would run it."""
    release_memory()
    if plan.settings.training.compile:
        torch.compiler.reset()


@contextlib.contextmanager
def reporting_to_trial(plan: RunPlan, plans: Sequence[RunPlan]) -> Iterator[None]:
    """Report the stage's epochs inside on the pipeline's axis, in a sweep."""
    current = current_trial()
    if current is None:
        yield
        return
    before = plans[: [other.name for other in plans].index(plan.name)]
    first_epoch = sum(other.settings.training.max_epochs for other in before)
    is_compared = plan.settings.objective == plans[-1].settings.objective
    if not is_compared:
        logger.info("stage %s has another objective than the last: it reports nothing and is not pruned", plan.name)
    cost_before = cost_of_all(part for other in before if (part := read_result(other.folder)) is not None)
    with running(replace(current, trial=StageTrial(current.trial, first_epoch, is_compared, cost_before))):
        yield


def result_of_whole(
    status: str, reason: str | None, plans: Sequence[RunPlan], folder: Path, tracker: Tracker
) -> RunResult:
    """Return the ``result.json`` of all stages: the furthest one's numbers, the last one's objective, the sum of the cost."""
    found = {stage.name: read_result(folder / stage.name) for stage in read_record(folder)}
    every = {name: part for name, part in found.items() if part is not None}
    parts = {stage.name: every[stage.name] for stage in plans if stage.name in every}
    furthest = list(parts.values())[-1] if parts else RunResult(status)
    last = parts.get(plans[-1].name)
    return replace(
        furthest,
        status=status,
        reason=reason if reason is not None else furthest.reason,
        objective=last.objective if last is not None else None,
        epochs=sum(part.epochs for part in parts.values()),
        steps=sum(part.steps for part in parts.values()),
        seconds=sum(part.seconds for part in parts.values()),
        cost=cost_of_all(parts.values()),
        mlflow_run_id=tracker.run_id,
        stages={name: asdict(part) for name, part in every.items()},
    )


def cost_of_all(parts: Iterable[RunResult]) -> dict[str, int | float]:
    """Return what runs have cost together, by name."""
    every = list(parts)
    return {key: sum(part.cost.get(key, 0.0) for part in every) for part in every for key in part.cost}


def read_result(folder: Path) -> RunResult | None:
    """Return what a stage wrote; None where it did not begin, or was killed."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_bytes())
        numbers = {
            key: {name: math.nan if value is None else value for name, value in content[key].items()}
            for key in ("metrics", *(["best_metrics"] if "best_metrics" in content else []))
        }
        return as_record(RunResult, {**content, **numbers})
    except (AttributeError, LookupError, TypeError, UnreadableError) as error:
        logger.warning("%s is damaged and counts as absent: %s", path, error)
        return None


def without_samples(plan: RunPlan) -> Config:
    """Return the plan's config without samples of the machine and TensorBoard files: the stages' own runs have them."""
    silent = {"system_metrics_seconds": None, "tensorboard": False}
    known = {key: value for key, value in silent.items() if key in plan.settings.tracking}
    return plan.with_values("tracking", **known).config


def record_whole(tracker: Tracker, plans: Sequence[RunPlan], folder: Path) -> None:
    """Track params of the whole: those that all stages share by their own name, others after the stage's."""
    every = {plan.name: flat(plan.recorded) for plan in plans}
    shared = {
        key: value
        for key, value in every[plans[0].name].items()
        if all(key in own and own[key] == value for own in every.values())
    }
    own = {
        f"{name}.{key}": value for name, values in every.items() for key, value in values.items() if key not in shared
    }
    tracker.log_params({**shared, **own})
    tracker.set_tags({
        **source_tags(git_state(Path.cwd())), "winnow.command": command_line() or "",
        "winnow.stages": ", ".join(every), **trial_tags(), **pipeline_tags(plans, folder),
    })  # fmt: skip
    tracker.log_artifact(folder / PIPELINE_RECORD)


def conclude(tracker: Tracker, result: RunResult, folder: Path) -> None:
    """Track the numbers by which pipelines are compared, and the end."""
    values = {f"cost/{name}": value for name, value in result.cost.items()}
    if result.objective is not None and result.best is not None:  # one value is all that an earlier winnow wrote
        values |= best_names(result.best_metrics or {result.best["metric"]: result.objective})
    tracker.log_metrics(values, result.steps)
    tracker.log_artifact(folder / "result.json")
    log_files(tracker, folder)
    tracker.finish(result.status)
    logger.info("all stages: %s; everything is in %s", result.status, folder)
