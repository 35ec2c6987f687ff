"""One evaluation of the weights on the validation batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from winnow.engine.compilation import uncompiled
from winnow.engine.counts import Counts, batch_counts, divisors, sums_by_count
from winnow.engine.determinism import require_deterministic
from winnow.engine.memory import memory_explained
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress
from winnow.engine.ranks import ALONE, Ranks
from winnow.engine.seeding import undisturbed_rng
from winnow.engine.transfer import Transfer, with_next
from winnow.protocols import Batch, Data, Metric, Task

logger = logging.getLogger(__name__)


@torch.inference_mode()
def evaluate(
    task: Task,
    data: Data,
    image_size: int,
    precision: Precision,
    progress: Progress,
    ranks: Ranks = ALONE,
    keep: Callable[[Metric], None] | None = None,
) -> dict[str, float]:
    """Return ``val/NAME`` of every number of the task's metric, and ``val/loss``, each term of it normalised by its own count
    over the whole validation set; each rank computes its share, and all get the numbers of the whole. Rank 0 gives ``keep`` the
    metric, which holds the whole then."""
    metric = task.new_metric()
    transfer = Transfer(precision)
    losses: list[dict[str, float]] = []
    counts: list[dict[str, float]] = []
    was_training = task.model.training
    task.model.eval()
    try:
        with uncompiled(), undisturbed_rng(), progress.task("evaluate", data.num_val_batches()) as advance:
            filled = (batch for batch in data.val_batches(image_size) if batch.num_samples)
            for host_batch, following in with_next(filled, transfer.is_ahead):
                count = batch_counts(task, host_batch)
                divisor = divisors(count)
                with memory_explained([host_batch], precision, "the evaluation"), precision.autocast():
                    batch = transfer(host_batch)
                    transfer.start(following)
                    outputs, terms = require_deterministic(
                        partial(_outputs_and_terms, task, batch, divisor), precision.device, "the evaluation"
                    )
                losses.append({name: loss * divisor[name] for name, loss in sums_by_count(task, terms, count).items()})
                counts.append(count)
                found = require_deterministic(
                    partial(task.predictions, outputs, batch), precision.device, "the evaluation's predictions"
                )
                metric.update(found, batch)
                advance(samples=batch.num_samples)
    finally:
        task.model.train(was_training)
    parts = ranks.gather((metric.state(), _exact_sums(losses), _exact_sums(counts)))
    numbers = _numbers(metric, parts) if ranks.is_main else {}
    if keep is not None and ranks.is_main:
        keep(metric)
    return ranks.broadcast(numbers)


def _outputs_and_terms(task: Task, batch: Batch, divisor: Counts) -> tuple[Any, dict[str, Tensor]]:
    outputs = task.forward(batch)
    return outputs, task.losses(outputs, batch, divisor)


def _numbers(metric: Metric, parts: list[tuple[Any, dict[str, float], dict[str, float]]]) -> dict[str, float]:
    """Return all numbers from ``metric``, which is rank 0's, and every rank's (metric state, sums of losses by what divides
    them, counts)."""
    for state, _, _ in parts[1:]:
        metric.merge(state)
    values = {f"val/{name}": value for name, value in metric.compute().items()}
    losses, counts = _exact_sums(loss for _, loss, _ in parts), divisors(_exact_sums(count for *_, count in parts))
    return {**values, "val/loss": math.fsum(loss / counts[name] for name, loss in losses.items())}


def _exact_sums(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum by name, the same whatever the order of the parts."""
    values: dict[str, list[float]] = {}
    for part in parts:
        for name, value in part.items():
            values.setdefault(name, []).append(value)
    return {name: math.fsum(values[name]) for name in sorted(values)}
