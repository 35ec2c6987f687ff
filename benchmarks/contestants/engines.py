"""The engines that race, each training the same task on the same batches: winnow's fit, bare loops, Trainer, Lightning."""

from __future__ import annotations

import itertools
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from contestants.turns import Channel, Turns
from torch import Tensor, nn
from torch.utils.data import DataLoader

from winnow.engine.counts import divisors
from winnow.engine.precision import choose_device
from winnow.families.detection.batch import DetectionBatch
from winnow.protocols import Task

CPU = torch.device("cpu")


def device_of(config: dict[str, Any]) -> torch.device:
    return choose_device(config["training"]["device"])


def winnow_fit(config: dict[str, Any], channel: Channel, block: int) -> None:
    """Run what ``python train.py`` runs, but for batches that come from memory and a tracker that is off."""
    from winnow.engine.loop import fit
    from winnow.engine.stop import StopRequest

    run = assembled(config)
    Turns(channel, block, run.step.optimizer)
    with StopRequest() as stop:
        fit(replace(run, data=FromMemory(run.data)), stop)


def same_loop(config: dict[str, Any], channel: Channel, block: int) -> None:
    """Run a bare loop over the parts that winnow built: its optimizer, memory format and precision. Beside it, fit shows
    what the engine costs."""
    run = assembled(config)
    run.task.model.train()
    Turns(channel, block, run.step.optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(run.step.optimizer, run.step.schedule.factor)
    batches = [batch.to(CPU, run.step.precision.memory_format) for batch in in_memory(run.data)]
    bare_loop(run.task, run.step.optimizer, schedule, batches, config, run.step.precision.memory_format)


def plain_loop(config: dict[str, Any], channel: Channel, block: int) -> None:
    """Run a bare loop as one writes it: contiguous tensors, torch's own choices for the optimizer."""
    task, data, optimizer, schedule = plain_parts(config)
    Turns(channel, block, optimizer)
    task.model.train()
    bare_loop(task, optimizer, schedule, contiguous(in_memory(data)), config)


def bare_loop(
    task: Task,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    batches: list[DetectionBatch],
    config: dict[str, Any],
    memory_format: torch.memory_format = torch.preserve_format,
) -> None:
    """Take the steps that every engine here takes, and nothing else: losses over the step's count, clipping, a check that
    they are finite, the update, and sums for the log."""
    training, device = config["training"], device_of(config)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sums: dict[str, Tensor] = {}
    for step, batch in enumerate(itertools.cycle(batches), start=1):
        count = divisors(task.loss_count(batch))
        batch = batch.to(device, memory_format)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=training["amp"] == "bf16"):
            terms = task.losses(task.forward(batch), batch, count)
            loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, training["clip_grad_norm"])
        if torch.isfinite(loss + norm):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        for name, term in terms.items():
            sums[name] = sums[name] + term.detach() if name in sums else term.detach()
        if step % training["log_interval"] == 0:
            logging.getLogger("race").info("%s", {name: float(value) / step for name, value in sums.items()})


def hugging_face_trainer(config: dict[str, Any], channel: Channel, block: int) -> None:
    """Run transformers' Trainer with its own choice of a fused AdamW, no progress bar, no saving."""
    from transformers import Trainer

    task, data, optimizer, schedule = plain_parts(config, fused=True)
    Turns(channel, block, optimizer)
    loader = endless(contiguous(in_memory(data)), lambda batch: {"batch": batch})

    class RaceTrainer(Trainer):
        def get_train_dataloader(self) -> Any:
            return loader

    run_trainer(RaceTrainer, LossModel(task), config, (optimizer, schedule))


def hugging_face_model(config: dict[str, Any], channel: Channel, block: int) -> None:
    """Run the same Trainer with transformers' own model and loss, of the same sizes: what one has without winnow."""
    from transformers import DeformableDetrForObjectDetection, Trainer

    ours, data, _, _ = plain_parts(config)
    sizes: Any = ours.model.config
    sizes.auxiliary_loss = True  # ours learns from every decoder layer, too
    torch.manual_seed(0)
    model: Any = DeformableDetrForObjectDetection(sizes)
    model.requires_grad_(True)  # ours trains its whole backbone where no weights were loaded
    training = config["training"]
    wanted = {name: value for name, value in training["optimizer"].items() if name not in ("_target_", "fused")}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, **wanted, fused=True)
    Turns(channel, block, optimizer)
    loader = endless([as_transformers(batch) for batch in in_memory(data)], lambda batch: batch)

    class RaceTrainer(Trainer):
        def get_train_dataloader(self) -> Any:
            return loader

    run_trainer(RaceTrainer, model, config, (optimizer, schedule_of(config, optimizer)))


def as_transformers(batch: DetectionBatch) -> dict[str, Any]:
    """Return what its image processor gives: normalised float images, a mask, labels with boxes in fractions of the image."""
    images = batch.images.float().contiguous() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    labels = []
    for target in batch.targets:
        height, width = target.size
        boxes = target.boxes / torch.tensor([width, height, width, height])
        centred = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
        labels.append({"class_labels": target.labels, "boxes": centred})
    return {"pixel_values": (images - mean) / std, "pixel_mask": batch.pixel_mask.long(), "labels": labels}


def run_trainer(kind: Any, model: nn.Module, config: dict[str, Any], optimizers: Any) -> None:
    from transformers import TrainingArguments

    training = config["training"]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=10**6, use_cpu=device_of(config).type == "cpu", bf16=training["amp"] == "bf16",
            max_grad_norm=training["clip_grad_norm"], logging_steps=training["log_interval"], save_strategy="no",
            report_to=[], disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        kind(model, arguments, optimizers=optimizers).train()


def lightning_trainer(config: dict[str, Any], channel: Channel, block: int) -> None:
    """Run Lightning's Trainer with its losses logged, no progress bar, no saving."""
    import lightning

    task, data, optimizer, schedule = plain_parts(config)
    Turns(channel, block, optimizer)
    loader = endless(contiguous(in_memory(data)), lambda batch: batch)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.model

        def training_step(self, batch: DetectionBatch, index: int) -> Tensor:
            terms = task.losses(task.forward(batch), batch, divisors(task.loss_count(batch)))
            self.log_dict(terms, batch_size=batch.num_samples)
            return torch.stack(list(terms.values())).sum()

        def configure_optimizers(self) -> Any:
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def transfer_batch_to_device(self, batch: DetectionBatch, device: torch.device, index: int) -> DetectionBatch:
            return batch.to(device)

    training = config["training"]
    trainer = lightning.Trainer(
        accelerator="cpu" if device_of(config).type == "cpu" else "gpu", devices=1, max_steps=10**6, logger=False,
        precision="bf16-mixed" if training["amp"] == "bf16" else "32-true",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, barebones=False,
        gradient_clip_val=training["clip_grad_norm"], log_every_n_steps=training["log_interval"],
    )  # fmt: skip
    trainer.fit(Module(), loader)


class LossModel(nn.Module):
    """A task as the Trainer wants a model: losses come out of forward."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._task = [task]  # in a list, so that its model is not registered twice

    def forward(self, batch: DetectionBatch) -> dict[str, Tensor]:
        (task,) = self._task
        count = divisors(task.loss_count(batch))
        batch = batch.to(next(self.model.parameters()).device)  # the Trainer moves only what it knows
        terms = task.losses(task.forward(batch), batch, count)
        return {"loss": torch.stack(list(terms.values())).sum()}


class FromMemory:
    """winnow's data with an endless epoch of batches that were read beforehand."""

    num_train_samples = sys.maxsize

    def __init__(self, data: Any) -> None:
        self._data = data
        self._batches = in_memory(data)

    def train_batches(self, epoch: int, image_size: int, start_sample: int = 0) -> Iterator[DetectionBatch]:
        return (fresh(batch) for batch in itertools.cycle(self._batches))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


def in_memory(data: Any, count: int = 16) -> list[DetectionBatch]:
    return list(itertools.islice(data.train_batches(1, data.image_size), count))


def fresh(batch: Any) -> Any:
    """Return a batch as a loader gives it: without what a task kept in it when it was seen before. What is no batch of ours
    keeps nothing."""
    return replace(batch, memo={}) if isinstance(batch, DetectionBatch) else batch


def contiguous(batches: Iterable[DetectionBatch]) -> list[DetectionBatch]:
    return [replace(batch, images=batch.images.contiguous()) for batch in batches]


def endless(batches: list[Any], wrap: Any) -> DataLoader[Any]:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return (wrap(fresh(batch)) for batch in itertools.cycle(batches))

    return DataLoader(Stream(), batch_size=None)


def assembled(config: dict[str, Any]) -> Any:
    from winnow.run.build import build
    from winnow.run.plan import RunPlan
    from winnow.tracking.null_tracker import NullTracker

    folder = Path(tempfile.mkdtemp())
    return build(RunPlan.of(config, folder, {}, None, None), NullTracker(folder))


def plain_parts(config: dict[str, Any], **options: Any) -> tuple[Task, Any, torch.optim.Optimizer, Any]:
    """Return the same task and data without anything that winnow's engine does to them, and the same optimizer settings."""
    import importlib

    from winnow.families.detection.data import LoadingSettings, digits_data
    from winnow.families.detection.metrics.coco_ap import CocoAp

    torch.manual_seed(0)
    training = config["training"]
    loading = LoadingSettings(**{name: training[name] for name in LoadingSettings.model_fields if name in training})
    data = digits_data(loading=loading, **without_target(config["data"]))
    module, _, builder = config["model"]["_target_"].rpartition(".")
    task = getattr(importlib.import_module(module), builder)(
        data.classes, lambda: CocoAp(data.classes), 100, 0.05, **without_target(config["model"])
    )
    wanted = {name: value for name, value in training["optimizer"].items() if name not in ("_target_", "fused")}
    task.model.to(device_of(config))
    trainable = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, **wanted, **options)
    return task, data, optimizer, schedule_of(config, optimizer)


def schedule_of(config: dict[str, Any], optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    from winnow.engine.schedule import LrSchedule
    from winnow.engine.settings import SchedulerSettings

    factors = LrSchedule(SchedulerSettings(**config["training"]["scheduler"]), 1000, 100)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factors.factor)


def without_target(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != "_target_"}


ENGINES = {
    "plain loop": plain_loop,
    "same loop": same_loop,
    "winnow": winnow_fit,
    "HF Trainer": hugging_face_trainer,
    "HF Trainer, its model": hugging_face_model,
    "Lightning": lightning_trainer,
}
