"""Going on from a checkpoint of another program: checked whole, then what it holds is taken over and what it lacks is said."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from winnow.checkpoints.layouts import ForeignCheckpoint, aligned
from winnow.engine.foreign_optimizer import NotTakenOverError, moments_by_name, state_for
from winnow.engine.loop import Fit, is_finished
from winnow.engine.restorable import why_no_rng_state
from winnow.engine.schedule import LrSchedule
from winnow.engine.seeding import set_rng_state
from winnow.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

_DIFFERENCES_SHOWN = 20


@dataclass
class _Takeover:
    """What was found in a file, checked but not yet applied; and what to say of it."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None = None
    moments: dict[str, dict[str, Any]] | None = None
    restored: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def restore_foreign(run: Fit, file: ForeignCheckpoint) -> None:
    """Take over what ``file`` holds. Nothing is touched before all of it was checked.

    ``epoch`` counts finished epochs; without one it follows from the step, and the step from it, by this run's steps per epoch.
    Raises CheckpointError if the weights are not this model's, ConfigError where the run would already be over.
    """
    takeover = _checked(run, file)
    step = run.step
    step.task.model.load_state_dict(takeover.weights)
    if takeover.moments is not None:
        step.optimizer.load_state_dict(state_for(step.optimizer, takeover.moments))
    if file.scaler is not None and step.scaler.is_enabled():
        step.scaler.load_state_dict(dict(file.scaler))
    if step.ema is not None and takeover.average is not None:
        step.ema.load_state_dict({"num_updates": run.state.step, "weights": takeover.average})
    elif step.ema is not None:
        step.ema.begin_here()
    if run.ranks.is_main and _is_rng(file.rng):
        _set_rng(file.rng)
    run.snapshot.note_resumed(str(file.path), run.state.epoch, run.state.step)
    _tell(run, file, takeover)


def _checked(run: Fit, file: ForeignCheckpoint) -> _Takeover:
    own = run.step.task.model.state_dict()
    weights, changed = aligned(file.weights, own)
    if changed is not None:
        logger.warning("weights of %s: %s, for so they fit this model", file.path, changed)
    _require_same_model(weights, own, file)
    if file.classes is not None and list(file.classes) != list(run.data.classes):
        logger.warning(
            "%s: its classes are %s, this run's %s; the class head is taken over row by row",
            file.path, ", ".join(file.classes), ", ".join(run.data.classes),
        )  # fmt: skip
    takeover = _Takeover(weights)
    takeover.restored.append(f"the weights ({len(weights)} tensors)")
    _place(run, file, takeover)
    _check_optimizer(run, file, takeover)
    _check_scaler_and_average(run, file, takeover)
    if _is_rng(file.rng):
        takeover.restored.append("random numbers")
    else:
        takeover.missing.append("random numbers (drawn from training.seed)")
    takeover.missing.append("the order of what is left of an epoch, loss sums, cost, the best value")
    return takeover


def _require_same_model(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], file: ForeignCheckpoint) -> None:
    shapes, saved = ({name: tuple(value.shape) for name, value in state.items()} for state in (own, weights))
    differences = [
        f"parameter {name}: {saved.get(name, 'absent')} in the file, {shapes.get(name, 'absent')} here"
        for name in sorted(shapes.keys() | saved.keys())
        if shapes.get(name) != saved.get(name)
    ]
    if differences:
        shown = "\n  ".join(differences[:_DIFFERENCES_SHOWN])
        raise CheckpointError(
            f"{file.path} (found under {file.layout}) holds the weights of another model, {len(differences)} differences; to "
            f"start from what fits use training.init_from:\n  {shown}"
        )


def _place(run: Fit, file: ForeignCheckpoint, takeover: _Takeover) -> None:
    """Set where the run stands: it goes no further than counters, which nothing has been made of yet."""
    per_epoch = -(-run.data.num_train_batches() // run.settings.accumulate)
    state = run.state
    if file.epoch is None and file.step is None:
        takeover.missing.append("epoch and step (both begin at 0)")
    state.epoch = file.epoch if file.epoch is not None else (file.step or 0) // per_epoch
    state.step = file.step if file.step is not None else state.epoch * per_epoch
    state.sample = file.sample if file.sample < run.data.num_train_samples else 0
    if file.epoch is not None or file.step is not None:
        known = ["epoch"] * (file.epoch is not None) + ["step"] * (file.step is not None)
        takeover.restored.append(f"{' and '.join(known)}: {state.epoch} finished epochs, step {state.step}")
    run.step.schedule = LrSchedule.of(run.settings, run.data, state)
    if is_finished(run):
        raise ConfigError(
            f"{file.path} stands at epoch {state.epoch}, step {state.step}, and training.max_epochs={run.settings.max_epochs}, "
            f"max_iter={run.settings.max_iter} leave nothing to do: raise them, or start from its weights with training.init_from"
        )


def _check_optimizer(run: Fit, file: ForeignCheckpoint, takeover: _Takeover) -> None:
    if file.optimizer is None:
        takeover.missing.append("optimizer (its moments begin at zero)")
    else:
        try:
            takeover.moments = moments_by_name(file.optimizer, run.step.optimizer, run.step.task.model)
            takeover.restored.append(f"the optimizer's moments ({len(takeover.moments)} parameters)")
        except NotTakenOverError as reason:
            takeover.missing.append(f"optimizer: {reason}; its moments begin at zero")
    scheduler = "is not used" if file.scheduler is not None else "is not in it"
    takeover.missing.append(f"scheduler (one {scheduler}: the learning rate is training.scheduler's at this step)")


def _check_scaler_and_average(run: Fit, file: ForeignCheckpoint, takeover: _Takeover) -> None:
    step = run.step
    if step.scaler.is_enabled():
        wanted = set(step.scaler.state_dict())
        if file.scaler is not None and not wanted <= set(file.scaler):
            raise CheckpointError(
                f"{file.path}: its gradient scaler lacks {', '.join(sorted(wanted - set(file.scaler)))}"
            )
        kept, part = (
            (takeover.restored, "the gradient scaler")
            if file.scaler
            else (takeover.missing, "gradient scaler (begins anew)")
        )
        kept.append(part)
    if step.ema is None:
        return
    if file.average is not None:
        own = step.task.model.state_dict()
        takeover.average, _ = aligned(file.average, own)
        _require_same_model(takeover.average, own, file)
        takeover.restored.append("the averaged weights (EMA)")
    else:
        takeover.missing.append("averaged weights (the EMA begins at these weights)")


def _is_rng(rng: Any) -> bool:
    is_ours = isinstance(rng, Mapping) and why_no_rng_state(rng) is None
    return is_ours or (
        isinstance(rng, Tensor) and rng.dtype == torch.uint8 and rng.shape == torch.get_rng_state().shape
    )


def _set_rng(rng: Any) -> None:
    if isinstance(rng, Tensor):
        torch.set_rng_state(rng)
    else:
        set_rng_state(dict(rng))


def _tell(run: Fit, file: ForeignCheckpoint, takeover: _Takeover) -> None:
    unread = [f"not understood and left: {', '.join(file.unread[:12])}"] if file.unread else []
    logger.warning(
        "resumed from %s, which winnow did not write (layout: %s). This is NOT exactly the run that was interrupted.\n"
        "  restored: %s\n  missing: %s%s",
        file.path, file.layout, "; ".join(takeover.restored), "; ".join(takeover.missing),
        "".join(f"\n  {line}" for line in unread),
    )  # fmt: skip
    logger.info("resumed from %s: epoch %d, step %d", file.path, run.state.epoch, run.state.step)
