"""The parts of a run from its config: data, task, optimizer and what else the engine fits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from winnow.builders import require_one_family
from winnow.checkpoints.folder import CheckpointFolder
from winnow.config.instantiate import check_node, instantiate, target_of, trusted
from winnow.config.plain import Config
from winnow.data.plan import LoadingSettings
from winnow.engine.allocator import keep_freed_memory
from winnow.engine.batch_norm import require_batches_for_batch_norm, require_share_of_each, synchronise_batch_norm
from winnow.engine.compilation import compile_steps
from winnow.engine.ema import Ema
from winnow.engine.frozen import References
from winnow.engine.gradients import FirstLook
from winnow.engine.loop import Fit
from winnow.engine.optimizer import build_optimizer, freeze, scaled_lr
from winnow.engine.precision import Precision, choose_device
from winnow.engine.progress import Progress
from winnow.engine.ranks import ALONE, Ranks
from winnow.engine.schedule import LrSchedule, SizeSchedule
from winnow.engine.seeding import make_deterministic, seed_everything
from winnow.engine.settings import Objective, TrainingSettings
from winnow.engine.snapshot import Snapshot
from winnow.engine.state import TrainState
from winnow.engine.step import TrainStep
from winnow.errors import ConfigError
from winnow.protocols import Data, Evaluation, Task, Tracker
from winnow.run.plan import RunPlan
from winnow.run.record import epoch_drawer
from winnow.sweep.current import current_trial

logger = logging.getLogger(__name__)


def build(plan: RunPlan, tracker: Tracker, ranks: Ranks = ALONE) -> Fit:
    """Build the parts of the run. Raises ConfigError, DataError, WeightsError before any training."""
    config, settings, folder = plan.config, plan.settings, plan.folder
    training = settings.training
    device = choose_device(training.device, ranks)
    if device.type == "cpu":
        keep_freed_memory()
    make_deterministic(training.deterministic)
    seed_everything(plan.seed)
    evaluation = checked_evaluation(config)
    data: Data = instantiate(config, "data", loading=loading_settings(plan, ranks))
    task: Task = instantiate(config, "model", **evaluation.model_arguments(data))
    if hasattr(evaluation, "look_over"):
        evaluation.look_over(task, data)
    precision = Precision.choose(training.amp, device, training.memory_format)
    prepare_model(task, training, precision, data, ranks)
    sizes = SizeSchedule.of(training.resize_schedule, data.image_size)
    optimizer = build_optimizer(
        optimizer_factory(plan), task.model, training.param_groups,
        scaled_lr(
            training.optimizer["lr"], training.auto_scale_lr.base_batch_size,
            training.batch_size * training.accumulate * ranks.size,
        ),
        training.no_decay,
    )  # fmt: skip
    objective = choose_objective(settings.objective, task, data, training.ema.also_raw)
    state = TrainState(objective, worst_value(objective, task))
    ema = Ema(task.model, training.ema.decay) if training.ema.decay is not None else None
    step = TrainStep(
        task, optimizer, LrSchedule.of(training, data, state),
        precision, training.clip_grad_norm, ema, training.max_nonfinite, ranks,
        FirstLook(task.model, training.require_gradients),
    )  # fmt: skip
    current = current_trial()
    metadata = {"data_fingerprint": data.fingerprint, "seed": plan.seed, "choices": plan.choices}
    if hasattr(data, "category_ids"):  # for whoever uses the model without the data
        metadata["category_ids"] = [int(number) for number in data.category_ids]
    references = References(folder) if training.frozen_weights == "referenced" else None
    return Fit(
        task=task, data=data, step=step, state=state, settings=training, sizes=sizes,
        checkpoints=CheckpointFolder(folder / "checkpoints", training.save_interval, training.keep_last_n),
        snapshot=Snapshot(
            step, plan.recorded, list(data.classes), metadata, references, training.frozen_source,
            getattr(data, "changes_since", None),
        ),
        tracker=tracker,
        trial=current.trial if current is not None else None, progress=Progress(shown=ranks.is_main),
        draw_epoch=epoch_drawer(evaluation, task, data, sizes.final, precision, tracker, folder / "pictures"),
    )  # fmt: skip


def checked_evaluation(config: Config) -> Evaluation:
    """Return the run's evaluation after checking its node, the model's, and that the two and the data fit together. Reads no
    data. Raises ConfigError."""
    require_one_family({key: target_of(config[key], key, trusted(config)) for key in ("model", "data", "evaluation")})
    check_node(config, "evaluation", [])
    evaluation: Evaluation = instantiate(config, "evaluation")
    check_node(config, "model", evaluation.model_argument_names)
    return evaluation


def prepare_model(
    task: Task, training: TrainingSettings, precision: Precision, data: Data, ranks: Ranks = ALONE
) -> None:
    freeze(task.model, training.freeze)
    if training.sync_batch_norm:
        task.model = synchronise_batch_norm(task.model, precision.device, ranks)
    require_batches(task, training, data)
    task.model.to(precision.device).to(memory_format=precision.memory_format)
    if training.compile:
        compile_steps(task.model)


def require_batches(task: Task, training: TrainingSettings, data: Data, start_sample: int = 0) -> None:
    """Raise ConfigError if a trainable BatchNorm would see a batch of one image in the rest of the epoch, after its first
    ``start_sample`` samples."""
    share = data.smallest_share(start_sample)
    if training.sync_batch_norm:
        require_share_of_each(share)
        require_batches_for_batch_norm(task.model, data.smallest_batch(start_sample))
    else:
        require_batches_for_batch_norm(task.model, max(1, share))


def choose_objective(asked: Objective, task: Task, data: Data, also_raw: bool = False) -> Objective:
    """Return ``asked``, or the training loss where there is nothing to validate on; ``also_raw``: the raw weights are evaluated
    beside the average, as ``val_raw/…``. Raises ConfigError for a metric that nothing gives."""
    if not data.num_val_batches():
        logger.warning("no validation data: the best checkpoint is the one with the lowest train/loss")
        return Objective(metric="train/loss", mode="min")
    metric = task.new_metric()
    splits = ["val", "val_raw"] if also_raw else ["val"]
    known = ["train/loss", *(f"{split}/{name}" for split in splits for name in ("loss", *metric.names))]
    unknown = [name for name in metric.headlines if name not in metric.names]
    if unknown:
        raise ConfigError(
            f"{type(metric).__name__}.headlines={unknown!r} are not among its names: {', '.join(metric.names)}"
        )
    if asked.metric not in known:
        raise ConfigError(f"objective.metric={asked.metric!r} is not a metric of this run; allowed: {', '.join(known)}")
    return asked


def worst_value(objective: Objective, task: Task) -> float | None:
    """Return the objective's worst value; None where its metric states none."""
    stated: Mapping[str, float] = getattr(task.new_metric(), "worst", {})
    return stated.get(objective.metric.removeprefix("val/").removeprefix("val_raw/"))


def loading_settings(plan: RunPlan, ranks: Ranks) -> LoadingSettings:
    """Return what of the plan the loading of data goes by."""
    names = LoadingSettings.model_fields.keys() - {"seed", "rank", "ranks", "val_split"}
    values = {name: getattr(plan.settings.training, name) for name in names}
    return LoadingSettings(seed=plan.seed, rank=ranks.rank, ranks=ranks.size, **values)


def optimizer_factory(plan: RunPlan) -> Callable[[list[dict[str, Any]]], Any]:
    """Return a function that makes the optimizer of parameter groups."""
    node = {**plan.settings.training.optimizer, "_partial_": True}
    return instantiate({**plan.config, "optimizer": node}, "optimizer")
