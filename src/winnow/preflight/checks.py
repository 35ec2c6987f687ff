"""The checks of a preflight on a run that is built: gradients, losses, disk, pictures, time and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from winnow.checkpoints.disk_room import disk_room, in_units
from winnow.checkpoints.host_copy import state_bytes
from winnow.checkpoints.state_dicts import origin_of
from winnow.engine.gradients import joint_norm, judge, judge_modules
from winnow.engine.loop import Fit
from winnow.errors import ConfigError
from winnow.preflight.estimate import EpochAhead, epochs_ahead, estimate
from winnow.preflight.report import Finding, GroupReport, ModuleReport, StageReport
from winnow.preflight.tryout import FirstSteps, take_first_steps, time_evaluation, time_steps, time_to_first_batch
from winnow.protocols import Evaluation
from winnow.run_folder import MadeFolders

NUM_PICTURES = 16
MOST_MODULES = 12


def try_out(run: Fit, evaluation: Evaluation, report: StageReport, out: Path, seconds: float) -> Iterator[str]:
    """Fill in ``report``, giving each check's name before it is made; the cheap ones first, as any may raise a WinnowError.

    Steps and evaluation are timed for ``seconds`` at most, all sizes together. Changes the weights of ``run``.
    """
    yield "steps"
    report.device, dtype = str(run.device), run.step.precision.dtype
    report.precision = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    _describe_parameters(run, report, None)
    first = take_first_steps(run)
    _judge_losses(first, report)
    yield "gradients"
    _judge_gradients(run, first, report)
    yield "disk"
    _check_disk(run, report)
    yield "pictures"
    picture = out / f"{report.stage}_train_batch.png"
    with MadeFolders(out) as made:
        try:
            made.make()
        except OSError as error:
            raise ConfigError(f"--out {out} can't be made: {error}; choose another") from error
        evaluation.draw_training(first.batches, run.data.classes, picture, NUM_PICTURES)
        made.keep()
    report.pictures = [str(picture)]
    yield "time"
    epochs = epochs_ahead(run)
    _time(run, epochs, report, seconds)
    yield "memory"
    _check_memory(run, report)


def _judge_losses(first: FirstSteps, report: StageReport) -> None:
    report.losses = first.terms
    if first.num_nonfinite:
        message = f"the loss or its gradient was not finite in {first.num_nonfinite} of {first.num_steps} steps"
        findings = report.errors if first.num_nonfinite == first.num_steps else report.warnings
        findings.append(Finding("steps", message))
    elif first.num_skipped == first.num_steps:
        message = (
            f"fp16: an infinite or NaN gradient in all {first.num_steps} steps, however small its scale became by then"
        )
        report.warnings.append(Finding("steps", message))


def _judge_gradients(run: Fit, first: FirstSteps, report: StageReport) -> None:
    if first.gradients is None or first.over_all is None:
        message = f"{first.num_steps} steps held nothing to learn from: are the images without annotations?"
        report.warnings.append(Finding("gradients", message))
        return
    _describe_parameters(run, report, {**first.gradients.norms, **first.gradients.frozen})
    found = judge(first.over_all, zero_is_none=True)
    messages = [*found.errors, *judge_modules(first.over_all)]
    report.errors += [Finding("gradients", message) for message in messages]
    report.warnings += [Finding("gradients", message) for message in found.warnings]


def _describe_parameters(run: Fit, report: StageReport, norms: Mapping[str, float | None] | None) -> None:
    named = dict(run.task.model.named_parameters())
    gradients = norms or {}
    groups = []
    held: set[str] = set()
    for group in run.step.optimizer.param_groups:
        held.update(group["tensors"])
        rates = float(group["base_lr"]), float(group.get("weight_decay", 0.0))
        groups.append(
            _group_report(str(group["name"]), {name: named[name] for name in group["tensors"]}, *rates, gradients)
        )
    rest = {name: parameter for name, parameter in named.items() if name not in held}
    if rest:
        groups.append(_group_report("frozen", rest, None, None, gradients))
    report.groups = groups
    report.modules = [_module_report(name, parts, gradients) for name, parts in modules_of(named).items()]


def _group_report(
    name: str, parameters: Mapping[str, nn.Parameter], lr: float | None, weight_decay: float | None,
    norms: Mapping[str, float | None],
) -> GroupReport:  # fmt: skip
    sources = Counter(origin_of(parameter) for parameter in parameters.values())
    return GroupReport(
        name, len(parameters), *_counts(parameters), lr, weight_decay, dict(sources),
        joint_norm({key: norms.get(key) for key in parameters}),
    )  # fmt: skip


def _module_report(
    name: str, parameters: Mapping[str, nn.Parameter], norms: Mapping[str, float | None]
) -> ModuleReport:
    return ModuleReport(name, *_counts(parameters), joint_norm({key: norms.get(key) for key in parameters}))


def _counts(parameters: Mapping[str, nn.Parameter]) -> tuple[int, int]:
    """Count all values, and those that train."""
    trainable = sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad)
    return sum(parameter.numel() for parameter in parameters.values()), trainable


def modules_of(named: Mapping[str, nn.Parameter]) -> dict[str, dict[str, nn.Parameter]]:
    """Return the parameters by the first parts of their names, as many parts as make no more than ``MOST_MODULES`` modules; one
    that is frozen in part is taken apart once more."""
    best: dict[str, dict[str, nn.Parameter]] = {}
    for depth in range(1, 1 + max([1, *(name.count(".") for name in named)])):
        modules: dict[str, dict[str, nn.Parameter]] = {}
        for name, parameter in named.items():
            key = ".".join(name.split(".")[:-1][:depth]) or name
            modules.setdefault(key, {})[name] = parameter
        if best and len(modules) > MOST_MODULES:
            break
        best = modules
    return {name: part for whole in best.items() for name, part in _trained_apart(*whole).items()}


def _trained_apart(name: str, parameters: dict[str, nn.Parameter]) -> dict[str, dict[str, nn.Parameter]]:
    """Return a module by its parts where it trains in part only and those parts are few, so that what is frozen stands alone."""
    if len({parameter.requires_grad for parameter in parameters.values()}) < 2:
        return {name: parameters}
    depth, parts = name.count(".") + 2, dict[str, dict[str, nn.Parameter]]()
    for key, parameter in parameters.items():
        parts.setdefault(".".join(key.split(".")[:-1][:depth]), {})[key] = parameter
    return parts if len(parts) <= MOST_MODULES else {name: parameters}


def _check_disk(run: Fit, report: StageReport) -> None:
    size = state_bytes(run.snapshot.take(run.state))
    try:
        room = disk_room(size, run.checkpoints, run.step.schedule.total_epochs)
    except OSError as error:
        report.errors.append(Finding("disk", f"how much disk is free is not known: {error}"))
        return
    report.disk = {**asdict(room), "folder": str(room.folder), "needed_bytes": room.needed_bytes, "words": str(room)}
    if not room.is_enough:
        report.errors.append(Finding("disk", f"{room}; lower training.keep_last_n, or make room"))


def _time(run: Fit, epochs: Sequence[EpochAhead], report: StageReport, seconds: float) -> None:
    if not epochs:
        report.warnings.append(Finding("time", "this run is finished: nothing is left to train"))
        return
    has_val = run.data.num_val_batches() > 0
    # Rising sizes: what a process kept of a larger one would be taken for the need of a smaller.
    sizes = sorted({epoch.image_size for epoch in epochs})
    share = seconds / (len(sizes) + has_val)
    timings = []
    for size in sizes:
        timings.append(time_steps(run, size, share))
        report.steps.append(asdict(timings[-1]))
    evaluation = time_evaluation(run, share) if has_val else None
    report.evaluation = None if evaluation is None else asdict(evaluation)
    taken = estimate(
        epochs,
        {timing.image_size: timing.seconds_per_step for timing in timings},
        time_to_first_batch(run, sizes[-1]),
        evaluation.seconds if evaluation is not None else 0.0,
        run.step.schedule.steps_per_epoch,
    )
    report.estimate = asdict(taken)


def _check_memory(run: Fit, report: StageReport) -> None:
    """Report the memory that was held at most, and what comes on top in a run."""
    evaluation = [report.evaluation["peak_bytes"]] if report.evaluation is not None else []
    peak = max([*(timing["peak_bytes"] for timing in report.steps), *evaluation], default=0)
    copy_bytes = report.disk["checkpoint_bytes"] if report.disk is not None else 0
    workers = sum(map(_own_bytes, psutil.Process().children()))
    available = psutil.virtual_memory().available
    is_gpu = run.device.type == "cuda"
    whose = "on the GPU" if is_gpu else "in the training process"
    words = f"{in_units(peak)} {whose} at most, {in_units(workers)} in its loader processes, {in_units(copy_bytes)} on the host "
    words += "for the copy of a checkpoint"
    memory: dict[str, Any] = {
        "peak_bytes": peak, "worker_bytes": workers, "copy_bytes": copy_bytes, "available_bytes": available,
    }  # fmt: skip
    if is_gpu:
        memory["gpu_bytes"] = torch.cuda.get_device_properties(run.device).total_memory
        words += f"; the GPU has {in_units(memory['gpu_bytes'])}"
    report.memory = {**memory, "words": words}
    others = (report.num_ranks - 1) * (workers + (0 if is_gpu else peak))
    if copy_bytes + others > available:
        needed = f"{in_units(copy_bytes)} for the copy of a checkpoint and {in_units(others)} for the other ranks"
        message = f"{needed} do not fit into the {in_units(available)} of memory that this machine has left"
        report.warnings.append(Finding("memory", message))


def _own_bytes(process: psutil.Process) -> int:
    """Return the unshared memory of a process in bytes; 0 if it has ended."""
    try:
        return int(process.memory_full_info().uss)
    except psutil.NoSuchProcess:
        return 0
