"""One run: from a composed config to what it leaves behind in its folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import yaml

from winnow.checkpoints.initial import initial_weights, load_initial_weights, write_report
from winnow.config.moved import with_moved_choices
from winnow.config.plain import Config
from winnow.config.schema import RunSettings
from winnow.engine.loop import Fit, fit, is_finished
from winnow.engine.memory import release_memory
from winnow.engine.ranks import Ranks
from winnow.engine.seeding import choose_seed
from winnow.engine.state import TrainState
from winnow.engine.stop import StopRequest
from winnow.errors import DivergedError, MemoryExhaustedError, WinnowError
from winnow.run.build import build, require_batches, take_up
from winnow.run.leader import Job, lead
from winnow.run.record import record_end, record_origin, result_of
from winnow.run.result import RunResult, is_concluded
from winnow.run.resume import Found, checkpoint_to_resume, config_of_run, in_halves, path_of
from winnow.run.tracker import choose_tracker
from winnow.run_folder import sole_owner
from winnow.settings import build_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What a run is asked for: its ``config`` as composed, which may lack values where it is resumed, the ``overrides`` of the
    command line, and config group → choice. ``parent_folder`` is that of the tracked run it belongs to."""

    config: Config
    overrides: list[str]
    choices: dict[str, str]
    parent_folder: Path | None


@dataclass(frozen=True)
class Origin:
    """Where a run comes from: the checkpoint it goes on from, and as in ``Start``."""

    found: Found | None
    choices: dict[str, str]
    parent_folder: Path | None


def run_in_folder(start: Start, folder: Path, stop: StopRequest) -> RunResult:
    """Train in ``folder``, from the beginning or on, and leave ``result.json`` behind whatever happens. Raises WinnowError for
    what the user must mend."""
    with sole_owner(folder):
        try:
            config, found = config_of_run(start.config, folder, start.overrides)
            # Of a resumed run as they were when it began.
            choices = (
                with_moved_choices(found[1]["metadata"].get("choices", {}))
                if isinstance(found, tuple)
                else start.choices
            )
            return train(config, folder, Origin(found, choices, start.parent_folder), stop)
        except WinnowError as error:
            if not (folder / "result.json").exists():
                RunResult("failed", reason=str(error)).write(folder)
            raise


def train(config: Config, folder: Path, origin: Origin, stop: StopRequest) -> RunResult:
    """Fit; once more with half the batch where memory was short and that is wanted."""
    smaller: Config | None = None
    try:
        return fit_in_folder(config, folder, origin, stop)
    except MemoryExhaustedError as error:
        smaller = in_halves(config)
        if smaller is None:
            raise
        logger.error("%s\ntrying once more with half the batch (training.oom_retry)", error)
    release_memory()  # only here is what the failed attempt held let go
    saved = checkpoint_to_resume("auto", folder) or origin.found
    return fit_in_folder(smaller, folder, Origin(saved, origin.choices, origin.parent_folder), stop)


def fit_in_folder(config: Config, folder: Path, origin: Origin, stop: StopRequest) -> RunResult:
    """Build everything that ``config`` names, and fit it."""
    settings = build_settings(RunSettings, config, "")
    seed = choose_seed(settings.training.seed)
    config = {**config, "training": {**config["training"], "seed": seed, "resume": None}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with lead(settings.training.num_ranks) as ranks:
        return fit_as_leader(config, settings, folder, origin, stop, ranks)


def fit_as_leader(
    config: Config, settings: RunSettings, folder: Path, origin: Origin, stop: StopRequest, ranks: Ranks
) -> RunResult:  # fmt: skip
    """Fit as rank 0. The others build their parts when this rank's are whole: what is wrong is said once, and what is drawn or
    downloaded is there."""
    tracker = choose_tracker(config, folder, origin.parent_folder)
    assembled = build(config, settings, config["training"]["seed"], folder, tracker, origin.choices, ranks)
    found, init_from = origin.found, settings.training.init_from
    if found is not None:
        take_up(assembled, found)
        require_batches(assembled.task, settings.training, assembled.data, assembled.state.sample)
        if is_finished(assembled) and is_concluded(folder):
            ranks.broadcast(None)
            logger.info("this run is finished, nothing was changed; raise training.max_epochs to train on")
            return result_of(assembled, "completed", None)
    elif init_from is not None:
        weights = initial_weights(init_from, None if settings.stage.is_alone else folder.parent)
        write_report(
            load_initial_weights(
                assembled.task.model, weights, settings.stage.init_allow_missing, settings.training.frozen_source
            ),
            folder,
        )
    ranks.broadcast(Job(config, folder.absolute(), path_of(found).absolute() if found is not None else None))
    with tracker:
        return fit_and_record(assembled, config, folder, stop)


def fit_and_record(assembled: Fit, config: Config, folder: Path, stop: StopRequest) -> RunResult:
    """Fit inside an open tracker; the status is recorded on every way out."""
    # The result of an earlier part of this run; without one, a kill from here on is seen to have concluded nothing.
    (folder / "result.json").unlink(missing_ok=True)
    record_origin(assembled, config, folder)
    status, reason = "failed", None
    try:
        status = fit(assembled, stop)
        if status != "interrupted":
            record_end(assembled, config, folder)
    except BaseException as error:
        status, reason = how_it_failed(error)
        raise
    finally:
        assembled.tracker.finish(status)
        result = result_of(assembled, status, reason)
        result.write(folder)
    logger.info("%s; best %s; everything is in %s", status, _best_words(assembled.state), folder)
    return result


def how_it_failed(error: BaseException) -> tuple[str, str | None]:
    """(status, reason) of a run that ``error`` ended."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", None
    if isinstance(error, DivergedError | MemoryExhaustedError):
        return "diverged" if isinstance(error, DivergedError) else "out_of_memory", str(error)
    return "failed", f"{type(error).__name__}: {error}"


def _best_words(state: TrainState) -> str:
    best = state.best
    return f"{best.metric} {best.value:.4f} at epoch {best.epoch}" if best else "unknown: nothing was evaluated"
