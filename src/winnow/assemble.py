"""From a composed config to a fitted run: the only module that instantiates from config."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import hydra.utils
import torch
import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from winnow.data.detection import DetectionData, LoadingSettings
from winnow.engine.allocator import keep_freed_memory
from winnow.engine.checkpoints import CheckpointFolder
from winnow.engine.compilation import compile_steps
from winnow.engine.ema import Ema
from winnow.engine.loop import Fit, fit, is_finished, restore
from winnow.engine.optimizer import build_optimizer, freeze, scaled_lr
from winnow.engine.precision import Precision, choose_device
from winnow.engine.progress import Progress
from winnow.engine.ranks import ALONE, Ranks
from winnow.engine.result import RunResult, is_concluded
from winnow.engine.run_folder import require_unused, sole_owner
from winnow.engine.schedule import LrSchedule, SizeSchedule
from winnow.engine.seeding import choose_seed, make_deterministic, seed_everything
from winnow.engine.settings import Objective, TrainingSettings
from winnow.engine.snapshot import Snapshot
from winnow.engine.state import TrainState
from winnow.engine.step import TrainStep
from winnow.engine.stop import StopRequest
from winnow.engine.weights import (
    load_initial_weights,
    require_batches_for_batch_norm,
    require_share_of_each,
    synchronise_batch_norm,
)
from winnow.errors import ConfigError, DivergedError, MemoryExhaustedError, WinnowError
from winnow.launch import Job, lead
from winnow.metrics.coco_ap import CocoAp
from winnow.protocols import Task, Tracker
from winnow.run_config import Config, checkpoint_to_resume, plain_config, require_one_start, resumed_config
from winnow.run_record import record_end, record_origin, result_of
from winnow.run_settings import RunSettings
from winnow.settings import build_settings, check_arguments
from winnow.sweep.current import current_trial
from winnow.torchrun import refuse_sweep

logger = logging.getLogger(__name__)

Found = tuple[Path, dict[str, Any]]
"""A checkpoint to resume: where it lies, and its content."""

# What a run that was told to stop exits with, so that a queue can tell it from a finished (0) and a failed (1) one.
EXIT_INTERRUPTED = 75
MODEL_INJECTED = ("classes", "new_metric", "max_detections", "score_threshold")


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
            found = checkpoint_to_resume(config["training"]["resume"], folder)
            if found is not None:
                config = resumed_config(found[1], config, list(job.overrides.task))
            else:
                config = plain_config(cfg)
                if config["training"]["resume"] is None:
                    require_unused(folder)
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
                result = train(smaller, folder, checkpoint_to_resume("auto", folder), choices)
        except WinnowError as error:
            if not (folder / "result.json").exists():
                RunResult("failed", reason=str(error)).write(folder)
            raise
    if result.status == "interrupted" and job.mode == RunMode.RUN:
        raise SystemExit(EXIT_INTERRUPTED)
    return result.objective


def in_halves(config: Config) -> Config | None:
    """``config`` with half the batch and twice the accumulation, which is the same step; None where that is not wanted or not
    possible."""
    training = config["training"]
    if not training["oom_retry"] or training["batch_size"] % 2:
        return None
    halved = {"batch_size": training["batch_size"] // 2, "accumulate": 2 * training["accumulate"]}
    return {**config, "training": {**training, **halved}}


def release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choices_of(job: HydraConf, found: Found | None) -> dict[str, str]:
    """Group → choice that the run was composed of; for a resumed run as it was when it began."""
    if found is not None:
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
    check_node(config, "tracking", ["run_folder", "parent_folder"])
    tracker: Tracker = instantiate(config, "tracking", **injected)
    assembled = build(config, settings, config["training"]["seed"], folder, tracker, choices, ranks)
    if found is not None:
        restore(assembled, found[1], found[0])
        assert isinstance(assembled.data, DetectionData)
        require_batches(assembled.task, settings.training, assembled.data, assembled.state.sample)
        if is_finished(assembled) and is_concluded(folder):
            ranks.broadcast(None)
            logger.info("this run is finished, nothing was changed; raise training.max_epochs to train on")
            return result_of(assembled, "completed", None)
    elif settings.training.init_from is not None:
        load_initial_weights(assembled.task.model, Path(settings.training.init_from))
    ranks.broadcast(Job(config, folder.absolute(), found[0].absolute() if found is not None else None))
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


def build(
    config: Config, settings: RunSettings, seed: int, folder: Path, tracker: Tracker, choices: dict[str, str],
    ranks: Ranks = ALONE,
) -> Fit:  # fmt: skip
    """The parts of the run. Raises ConfigError, DataError, WeightsError before any training."""
    training = settings.training
    device = choose_device(training.device, ranks)
    if device.type == "cpu":
        keep_freed_memory()
    if training.deterministic:
        make_deterministic()
    seed_everything(seed)
    check_node(config, "model", MODEL_INJECTED)
    data: DetectionData = instantiate(config, "data", loading=loading_settings(settings, seed, ranks))
    evaluation = settings.evaluation
    new_metric = partial(CocoAp, data.classes, data.category_ids, **evaluation.model_dump())
    task: Task = instantiate(
        config, "model", classes=data.classes, new_metric=new_metric,
        max_detections=evaluation.max_detections, score_threshold=evaluation.score_threshold,
    )  # fmt: skip
    prepare_model(task, training, device, data, ranks)
    sizes = SizeSchedule.of(training.resize_schedule, data.image_size)
    optimizer = build_optimizer(
        optimizer_factory(config), task.model, training.param_groups,
        scaled_lr(
            training.optimizer["lr"], training.auto_scale_lr.base_batch_size,
            training.batch_size * training.accumulate * ranks.size,
        ),
    )  # fmt: skip
    state = TrainState(choose_objective(settings.objective, task, data))
    ema = Ema(task.model, training.ema.decay) if training.ema.decay is not None else None
    step = TrainStep(
        task, optimizer, LrSchedule.of(training, data, state),
        Precision.choose(training.amp, device), training.clip_grad_norm, ema, training.max_nonfinite, ranks,
    )  # fmt: skip
    current = current_trial()
    metadata = {"data_fingerprint": data.fingerprint, "seed": seed, "choices": choices}
    return Fit(
        task=task, data=data, step=step, state=state, settings=training, sizes=sizes,
        checkpoints=CheckpointFolder(folder / "checkpoints", training.save_interval, training.keep_last_n),
        snapshot=Snapshot(step, config, list(data.classes), metadata), tracker=tracker,
        trial=current.trial if current is not None else None, progress=Progress(shown=ranks.is_main),
    )  # fmt: skip


def prepare_model(
    task: Task, training: TrainingSettings, device: torch.device, data: DetectionData, ranks: Ranks = ALONE
) -> None:
    freeze(task.model, training.freeze)
    if training.sync_batch_norm:
        task.model = synchronise_batch_norm(task.model, device, ranks)
    require_batches(task, training, data)
    task.model.to(device).to(memory_format=torch.channels_last)
    if training.compile:
        compile_steps(task.model)


def require_batches(task: Task, training: TrainingSettings, data: DetectionData, start_sample: int = 0) -> None:
    """ConfigError where batch norm can't do with a batch of what is left of an epoch after its first ``start_sample`` samples;
    with another batch size its end is cut anew."""
    share = data.smallest_share(start_sample)
    if training.sync_batch_norm:
        require_share_of_each(share)
        require_batches_for_batch_norm(task.model, data.smallest_batch(start_sample))
    else:
        require_batches_for_batch_norm(task.model, max(1, share))


def choose_objective(asked: Objective, task: Task, data: DetectionData) -> Objective:
    """``asked``, or the training loss where there is nothing to validate on; ConfigError for a metric that nothing gives."""
    if not data.num_val_batches():
        logger.warning("no validation data: the best checkpoint is the one with the lowest train/loss")
        return Objective(metric="train/loss", mode="min")
    known = ["train/loss", "val/loss", *(f"val/{name}" for name in task.new_metric().names)]
    if asked.metric not in known:
        raise ConfigError(f"objective.metric={asked.metric!r} is not a metric of this run; allowed: {', '.join(known)}")
    return asked


def loading_settings(settings: RunSettings, seed: int, ranks: Ranks) -> LoadingSettings:
    names = LoadingSettings.model_fields.keys() - {"seed", "rank", "ranks"}
    return LoadingSettings(
        seed=seed, rank=ranks.rank, ranks=ranks.size, **{name: getattr(settings.training, name) for name in names}
    )


def instantiate(config: Config, key: str, **injected: Any) -> Any:
    """The object of the node ``key``, with what only code can give. ConfigError for anything the node does wrong."""
    try:
        return hydra.utils.instantiate(config[key], _convert_="all", _execution_whitelist_=trusted(config), **injected)
    except InstantiationException as error:
        if isinstance(error.__cause__, WinnowError):
            raise error.__cause__ from None
        raise ConfigError(f"{key}: {error.__cause__ or error}") from error


def check_node(config: Config, key: str, injected: Collection[str]) -> None:
    """Refuse what the node's target does not take, before anything slow happens."""
    node = config[key]
    name = node.get("_target_")
    if not isinstance(name, str):
        raise ConfigError(f"{key}._target_ must name the class or function to build, got {name!r}")
    if not name.startswith(tuple(pattern.removesuffix("*") for pattern in trusted(config))):
        raise ConfigError(
            f"{key}._target_={name!r} is not trusted; add its package to trusted_targets, as [{name.split('.')[0]}]"
        )
    try:
        target = hydra.utils.get_object(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}._target_={name!r} can't be imported: {error}") from error
    check_arguments(target, {name: value for name, value in node.items() if name != "_target_"}, injected, key)


def trusted(config: Config) -> list[str]:
    return ["winnow.*", "torch.optim.*", *(f"{name}.*" for name in config["trusted_targets"])]


def optimizer_factory(config: Config) -> Callable[[list[dict[str, Any]]], Any]:
    node = {**config["training"]["optimizer"], "_partial_": True}
    return instantiate({**config, "optimizer": node}, "optimizer")


def _best_words(state: TrainState) -> str:
    best = state.best
    return f"{best.metric} {best.value:.4f} at epoch {best.epoch}" if best else "unknown: nothing was evaluated"
