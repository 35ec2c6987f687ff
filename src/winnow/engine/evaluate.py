"""One evaluation of the weights on the validation batches."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from winnow.engine.compilation import uncompiled
from winnow.engine.memory import memory_explained
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress
from winnow.engine.ranks import ALONE, Ranks
from winnow.engine.seeding import undisturbed_rng
from winnow.protocols import Data, Metric, Task

logger = logging.getLogger(__name__)


@torch.inference_mode()
def evaluate(
    task: Task, data: Data, image_size: int, precision: Precision, progress: Progress, ranks: Ranks = ALONE
) -> dict[str, float]:
    """``val/NAME`` of every number of the task's metric, and ``val/loss``, normalised over the whole validation set; each
    rank computes its share, and all get the numbers of the whole."""
    metric = task.new_metric()
    losses: list[float] = []
    counts: list[float] = []
    was_training = task.model.training
    task.model.eval()
    try:
        with uncompiled(), undisturbed_rng(), progress.task("evaluate", data.num_val_batches()) as advance:
            for host_batch in data.val_batches(image_size):
                if not host_batch.num_samples:
                    continue
                count = task.loss_count(host_batch)
                divisor = max(1.0, count)
                with memory_explained([host_batch], precision, "the evaluation"), precision.autocast():
                    batch = host_batch.to(precision.device, precision.memory_format)
                    outputs = task.forward(batch)
                    terms = task.losses(outputs, batch, divisor)
                losses.append(float(torch.stack(list(terms.values())).sum()) * divisor)
                counts.append(count)
                metric.update(task.predictions(outputs, batch), batch)
                advance(samples=batch.num_samples)
    finally:
        task.model.train(was_training)
    parts = ranks.gather((metric.state(), math.fsum(losses), math.fsum(counts)))
    return ranks.broadcast(_numbers(metric, parts) if ranks.is_main else {})


def _numbers(metric: Metric, parts: list[tuple[Any, float, float]]) -> dict[str, float]:
    """From ``metric``, which is rank 0's, and every rank's (metric state, sum of losses, their count)."""
    for state, _, _ in parts[1:]:
        metric.merge(state)
    values = {f"val/{name}": value for name, value in metric.compute().items()}
    loss = math.fsum(loss for _, loss, _ in parts) / max(1.0, math.fsum(count for *_, count in parts))
    return {**values, "val/loss": loss}
