"""From a composed config to a fitted run, and to what it leaves behind."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from winnow.build import build, require_batches
from winnow.checkpoint_layouts import ForeignCheckpoint
from winnow.data.detection import DetectionData
from winnow.engine.foreign import adopt
from winnow.engine.loop import Fit, fit, is_finished, restore
from winnow.engine.memory import release_memory
from winnow.engine.ranks import Ranks
from winnow.engine.result import RunResult, is_concluded
from winnow.engine.run_folder import require_unused, sole_owner
from winnow.engine.seeding import choose_seed
from winnow.engine.state import TrainState
from winnow.engine.stop import StopRequest
from winnow.engine.weights import load_initial_weights
from winnow.errors import DivergedError, MemoryExhaustedError, WinnowError
from winnow.launch import Job, lead
from winnow.run_config import (
    Config,
    checkpoint_to_resume,
    foreign_to_resume,
    in_halves,
    log_other_config,
    plain_config,
    require_one_start,
    resumed_config,
)
from winnow.run_record import record_end, record_origin, result_of
from winnow.run_settings import RunSettings
from winnow.settings import build_settings
from winnow.sweep.current import current_trial
from winnow.torchrun import refuse_sweep
from winnow.tracked import choose_tracker

logger = logging.getLogger(__name__)

Found = tuple[Path, dict[str, Any]] | ForeignCheckpoint
"""A checkpoint to resume: where it lies and its content, or what another program's file holds."""

# What a run that was told to stop exits with, so that a queue can tell it from a finished (0) and a failed (1) one.
EXIT_INTERRUPTED = 75


def run(cfg: DictConfig) -> float | None:
    """Train as composed, in Hydra's output folder; the best objective, or None where nothing was evaluated.

    Raises WinnowError for what the user must mend. An interrupted single run ends the process with ``EXIT_INTERRUPTED``.
    """
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        refuse_sweep(["--multirun"])
    folder = Path(job.runtime.output_dir)
    with sole_owner(folder):
        try:
            config = plain_config(cfg, may_lack=True)
            require_one_start(config)
            resume = config["training"]["resume"]
            foreign = foreign_to_resume(resume)
            saved = checkpoint_to_resume(resume, folder) if foreign is None else None
            found: Found | None = foreign or saved
            if saved is not None:
                config = resumed_config(saved[1], config, list(job.overrides.task))
            else:
                config = plain_config(cfg)
                if resume is None or foreign is not None:
                    require_unused(folder)
                if foreign is not None:
                    log_other_config(foreign, config)
            choices = choices_of(job, found)
            smaller: Config | None = None
            try:
                result = train(config, folder, found, choices)
            except MemoryExhaustedError as error:
                smaller = in_halves(config)
                if smaller is None:
                    raise
                logger.error("%s\ntrying once more with half the batch (training.oom_retry)", error)
            if smaller is not None:  # only here is what the failed attempt held let go
                release_memory()
                result = train(smaller, folder, checkpoint_to_resume("auto", folder) or found, choices)
        except WinnowError as error:
            if not (folder / "result.json").exists():
                RunResult("failed", reason=str(error)).write(folder)
            raise
    if result.status == "interrupted" and job.mode == RunMode.RUN:
        raise SystemExit(EXIT_INTERRUPTED)
    return result.objective


def choices_of(job: HydraConf, found: Found | None) -> dict[str, str]:
    """Group → choice that the run was composed of; for a resumed run as it was when it began."""
    if isinstance(found, tuple):
        return dict(found[1]["metadata"].get("choices", {}))
    return {group: str(choice) for group, choice in job.runtime.choices.items() if not group.startswith("hydra/")}


def train(config: Config, folder: Path, found: Found | None, choices: dict[str, str]) -> RunResult:
    """Build everything that ``config`` names, fit it, and leave ``result.json`` behind whatever happens."""
    with StopRequest() as stop:
        return fit_in_folder(config, folder, found, choices, stop)


def fit_in_folder(
    config: Config, folder: Path, found: Found | None, choices: dict[str, str], stop: StopRequest
) -> RunResult:
    settings = build_settings(RunSettings, config, "")
    seed = choose_seed(settings.training.seed)
    config = {**config, "training": {**config["training"], "seed": seed, "resume": None}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with lead(settings.training.num_ranks) as ranks:
        return fit_as_leader(config, settings, folder, found, choices, stop, ranks)


def fit_as_leader(
    config: Config, settings: RunSettings, folder: Path, found: Found | None, choices: dict[str, str], stop: StopRequest,
    ranks: Ranks,
) -> RunResult:  # fmt: skip
    """Fit as rank 0. The others build their parts when this rank's are whole: what is wrong is said once, and what is drawn or
    downloaded is there."""
    current = current_trial()
    injected = {"run_folder": folder, **({"parent_folder": current.study_folder} if current is not None else {})}
    tracker = choose_tracker(config, **injected)
    assembled = build(config, settings, config["training"]["seed"], folder, tracker, choices, ranks)
    if found is not None:
        if isinstance(found, ForeignCheckpoint):
            adopt(assembled, found)
        else:
            restore(assembled, found[1], found[0])
        assert isinstance(assembled.data, DetectionData)
        require_batches(assembled.task, settings.training, assembled.data, assembled.state.sample)
        if is_finished(assembled) and is_concluded(folder):
            ranks.broadcast(None)
            logger.info("this run is finished, nothing was changed; raise training.max_epochs to train on")
            return result_of(assembled, "completed", None)
    elif settings.training.init_from is not None:
        load_initial_weights(assembled.task.model, Path(settings.training.init_from))
    resumed_from = found[0] if isinstance(found, tuple) else found.path if found is not None else None
    ranks.broadcast(Job(config, folder.absolute(), resumed_from.absolute() if resumed_from is not None else None))
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
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except (DivergedError, MemoryExhaustedError) as error:
        status, reason = "diverged" if isinstance(error, DivergedError) else "out_of_memory", str(error)
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        assembled.tracker.finish(status)
        result = result_of(assembled, status, reason)
        result.write(folder)
    logger.info("%s; best %s; everything is in %s", status, _best_words(assembled.state), folder)
    if status == "interrupted":
        logger.info("go on with: training.resume=%s", assembled.checkpoints.last)
    return result


def _best_words(state: TrainState) -> str:
    best = state.best
    return f"{best.metric} {best.value:.4f} at epoch {best.epoch}" if best else "unknown: nothing was evaluated"
