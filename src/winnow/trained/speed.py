"""How fast a trained model is, and what it takes: parameters, milliseconds per picture, memory."""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from winnow.engine.compilation import uncompiled
from winnow.errors import ConfigError

if TYPE_CHECKING:
    from winnow.trained.model import TrainedModel

_SEED = 0


@dataclass(frozen=True)
class Speed:
    """``forward_ms`` and ``predict_ms`` are medians per picture, without and with what comes after the network; ``weights_mb``
    what parameters and buffers take, ``peak_mb`` the most that the device had allocated, on a CPU the most that this process
    took."""

    parameters: int
    weights_mb: float
    batch_size: int
    shape: tuple[int, int]
    forward_ms: float
    predict_ms: float
    peak_mb: float


@torch.inference_mode()
def measure(model: TrainedModel, batch_size: int, repeats: int) -> Speed:
    """Return the speed of ``model`` on batches of noise, square pictures of the size that it was evaluated at, after one that
    warms it up. Raises ConfigError for numbers below 1, or for a family that can't read pictures."""
    if batch_size < 1 or repeats < 1:
        raise ConfigError(f"batch_size={batch_size} and repeats={repeats} must be at least 1")
    if not hasattr(model.evaluation, "picture_batch"):
        raise ConfigError(f"{type(model.evaluation).__name__} can't make batches of pictures (picture_batch)")
    size = model.image_size
    pictures = [_sample(model)] * batch_size
    names = [str(number) for number in range(batch_size)]
    made = model.evaluation.picture_batch(pictures, names, model.config["data"], size)
    batch = made.to(model.precision.device, model.precision.memory_format)
    if model.precision.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.precision.device)
    forward, whole = [], []
    with uncompiled():
        for number in range(repeats + 1):
            began = time.perf_counter()
            with model.precision.autocast():
                outputs = model.task.forward(batch)
            _wait(model)
            looked = time.perf_counter()
            model.task.predictions(outputs, batch)
            _wait(model)
            if number:
                forward.append(looked - began)
                whole.append(time.perf_counter() - began)
    tensors = [*model.task.model.parameters(), *model.task.model.buffers()]
    return Speed(
        parameters=sum(parameter.numel() for parameter in model.task.model.parameters()),
        weights_mb=sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6,
        batch_size=batch_size,
        shape=(made.shape[-2], made.shape[-1]),
        forward_ms=1e3 * statistics.median(forward) / batch_size,
        predict_ms=1e3 * statistics.median(whole) / batch_size,
        peak_mb=_peak_bytes(model) / 1e6,
    )


def _sample(model: TrainedModel) -> Any:
    """Return what the family takes as one sample, of noise."""
    size, parts = model.image_size, model.picture_parts
    noise = np.random.default_rng(_SEED).integers(0, 256, (size, size, 3), dtype=np.uint8)
    if hasattr(model.evaluation, "sample_of"):
        return model.evaluation.sample_of(noise)
    return tuple(noise for _ in parts) if parts else noise


def _wait(model: TrainedModel) -> None:
    if model.precision.device.type == "cuda":
        torch.cuda.synchronize(model.precision.device)


def _peak_bytes(model: TrainedModel) -> int:
    if model.precision.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(model.precision.device))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
