"""What a run will take, from the seconds of a step at each of its image sizes and of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from winnow.engine.loop import Fit


@dataclass(frozen=True)
class EpochAhead:
    """An epoch that is still to come, or the rest of the one in progress."""

    epoch: int
    image_size: int
    num_steps: int
    is_evaluated: bool


@dataclass(frozen=True)
class SizeEstimate:
    """The epochs at one image size; ``epoch_seconds`` is a whole one without its evaluation."""

    image_size: int
    num_epochs: int
    epoch_seconds: float


@dataclass(frozen=True)
class Estimate:
    """``seconds`` from the first step to the end of the last evaluation, ``evaluation_seconds`` of them in ``num_evaluations``;
    early stopping and pruning are not foreseen."""

    sizes: tuple[SizeEstimate, ...]
    num_steps: int
    num_evaluations: int
    evaluation_seconds: float
    seconds: float


def epochs_ahead(run: Fit) -> list[EpochAhead]:
    """Return the epochs that the loop would train from ``run.state`` on."""
    state, schedule, accumulate = run.state, run.step.schedule, run.settings.accumulate
    step, epochs = state.step, []
    sample = state.sample
    for epoch in range(state.epoch + 1, schedule.total_epochs + 1):
        left = min(-(-run.data.num_train_batches(sample) // accumulate), schedule.total_steps - step)
        step, sample = step + left, 0
        is_evaluated = epoch % run.settings.eval_interval == 0 or step >= schedule.total_steps
        epochs.append(EpochAhead(epoch, run.sizes.size(epoch), left, is_evaluated and run.data.num_val_batches() > 0))
    return epochs


def estimate(
    epochs: Sequence[EpochAhead], step_seconds: Mapping[int, float], start_seconds: float, evaluation_seconds: float,
    steps_per_epoch: int,
) -> Estimate:  # fmt: skip
    """Estimate what the epochs take: ``step_seconds`` by image size; ``start_seconds`` of each epoch and ``evaluation_seconds``
    of each evaluation."""
    counts = Counter(epoch.image_size for epoch in epochs)
    sizes = tuple(
        SizeEstimate(size, counts[size], start_seconds + steps_per_epoch * step_seconds[size])
        for size in sorted(counts)
    )
    num_evaluations = sum(epoch.is_evaluated for epoch in epochs)
    training = sum(start_seconds + epoch.num_steps * step_seconds[epoch.image_size] for epoch in epochs)
    in_evaluations = num_evaluations * evaluation_seconds
    num_steps = sum(epoch.num_steps for epoch in epochs)
    return Estimate(sizes, num_steps, num_evaluations, in_evaluations, training + in_evaluations)
