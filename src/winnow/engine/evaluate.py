"""One evaluation of the weights on the validation batches."""

from __future__ import annotations

import logging
import math

import torch

from winnow.engine.compilation import uncompiled
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress
from winnow.engine.seeding import undisturbed_rng
from winnow.protocols import Data, Task

logger = logging.getLogger(__name__)


@torch.inference_mode()
def evaluate(task: Task, data: Data, image_size: int, precision: Precision, progress: Progress) -> dict[str, float]:
    """``val/NAME`` of every number of the task's metric, and ``val/loss``, normalised over the whole validation set."""
    metric = task.new_metric()
    losses: list[float] = []
    counts: list[float] = []
    was_training = task.model.training
    task.model.eval()
    try:
        with uncompiled(), undisturbed_rng(), progress.task("evaluate", data.num_val_batches()) as advance:
            for host_batch in data.val_batches(image_size):
                count = max(1.0, task.loss_count(host_batch))
                batch = host_batch.to(precision.device)
                with precision.autocast():
                    outputs = task.forward(batch)
                    terms = task.losses(outputs, batch, count)
                losses.append(float(torch.stack(list(terms.values())).sum()) * count)
                counts.append(count)
                metric.update(task.predictions(outputs, batch), batch)
                advance(images=batch.num_images)
    finally:
        task.model.train(was_training)
    values = {f"val/{name}": value for name, value in metric.compute().items()}
    return {**values, "val/loss": math.fsum(losses) / math.fsum(counts)}
