"""What goes into a checkpoint, and how it comes out again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from winnow.checkpoints.file import VERSION
from winnow.checkpoints.layouts import with_frozen_weights
from winnow.checkpoints.references import file_tensors, with_references
from winnow.checkpoints.state_dicts import frozen_parameters, mark_file_tensors
from winnow.engine.frozen import References
from winnow.engine.restorable import require_restorable
from winnow.engine.seeding import rng_state
from winnow.engine.state import TrainState
from winnow.engine.step import TrainStep
from winnow.errors import CheckpointError

logger = logging.getLogger(__name__)


class Snapshot:
    """Takes and restores the whole state of a run; ``config``, ``classes`` and ``metadata`` are plain values that go along.

    ``referencing``: frozen weights are not taken where they are those of a file, but named by it (None: training.frozen_weights
    is stored). ``frozen_source``: where such a file is now, if it has moved. ``changes_since`` is the data's own, if it has any.
    """

    def __init__(
        self, step: TrainStep, config: dict[str, Any], classes: list[str], metadata: Mapping[str, Any],
        referencing: References | None = None, frozen_source: str | None = None,
        changes_since: Callable[[str], Sequence[str] | None] | None = None,
    ) -> None:  # fmt: skip
        self._step = step
        self._referencing = referencing
        self._frozen_source = frozen_source
        self._changes_since = changes_since
        self._config = config
        self._classes = classes
        self._metadata = dict(metadata)

    def take(self, state: TrainState) -> dict[str, Any]:
        """Return the content of a checkpoint; its tensors are those of the run, which training goes on to change.

        ``model_state_dict`` holds the weights that are evaluated. With an EMA that is the average, the very tensors of
        ``ema_state_dict``, and ``training_state_dict`` holds those that training goes on with. All ranks take it
        together; rank 0's holds the random numbers of all.
        """
        step, model = self._step, self._step.task.model
        best = vars(state.best) if state.best is not None else None
        rng = rng_state()
        rng_ranks = step.ranks.gather(rng)[1:]
        checkpoint = {
            "version": VERSION,
            "epoch": state.epoch,
            "step": state.step,
            "model_state_dict": step.ema.weights() if step.ema is not None else model.state_dict(),
            **({"training_state_dict": model.state_dict()} if step.ema is not None else {}),
            "optimizer_state_dict": step.optimizer.state_dict(),
            "scheduler_state_dict": {
                "total_steps": step.schedule.total_steps,
                "factor": step.schedule.factor(state.step - step.held_back),
            },
            "scaler_state_dict": step.scaler.state_dict(),
            "ema_state_dict": step.ema.state_dict() if step.ema is not None else None,
            "rng": rng,
            "metric": state.objective.metric,
            "metrics": dict(state.metrics),
            "best": best,
            "config": self._config,
            "classes": self._classes,
            "metadata": self._metadata,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "progress": {**state.state_dict(), "step_counters": step.state_dict(), "rng_ranks": rng_ranks},
        }
        if self._referencing is None or not step.ranks.is_main:
            return checkpoint
        return with_references(checkpoint, self._referencing.of(model), frozen_parameters(model))

    def restore(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Load weights, optimizer, scaler, EMA and counters; a scaler or an EMA that the file lacks begins from here. Nothing is
        touched before all of it was checked.

        Raises CheckpointError where model, classes, data, or what the optimizer trains differ, or an entry is odd; WeightsError
        where a file is missing or has changed that it takes frozen weights from.
        """
        checkpoint = with_frozen_weights(checkpoint, path, self._frozen_source)
        self._refuse_other_run(checkpoint, path)
        step = self._step
        require_restorable(checkpoint, path, step)
        step.task.model.load_state_dict(checkpoint.get("training_state_dict", checkpoint["model_state_dict"]))
        mark_file_tensors(step.task.model, file_tensors(checkpoint))
        step.optimizer.load_state_dict(_with_current_rates(checkpoint["optimizer_state_dict"], step.optimizer))
        step.load_state_dict(checkpoint["progress"]["step_counters"])
        if step.scaler.is_enabled() and checkpoint["scaler_state_dict"]:
            step.scaler.load_state_dict(checkpoint["scaler_state_dict"])
        if step.ema is not None and checkpoint["ema_state_dict"] is not None:
            step.ema.load_state_dict(checkpoint["ema_state_dict"])
        elif step.ema is not None:
            step.ema.begin_here()
            logger.warning("training.ema.decay was null: the average begins at the weights of the checkpoint")
        elif checkpoint["ema_state_dict"] is not None:
            logger.warning("training.ema.decay is null: the checkpoint's averaged weights are left behind")

    def note_resumed(self, path: str, epoch: int, step: int, before: Sequence[Mapping[str, Any]] = ()) -> None:
        """Remember for the next checkpoints where this run was resumed from, after those ``before``."""
        self._metadata["resumed_from"] = [*before, {"path": path, "epoch": epoch, "step": step}]

    def _refuse_other_run(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        own = {name: tuple(value.shape) for name, value in self._step.task.model.state_dict().items()}
        saved = {name: tuple(value.shape) for name, value in checkpoint["model_state_dict"].items()}
        differences = [
            f"parameter {name}: {saved.get(name, 'absent')} in the file, {own.get(name, 'absent')} here"
            for name in sorted(own.keys() | saved.keys())
            if own.get(name) != saved.get(name)
        ]
        if list(checkpoint["classes"]) != self._classes:
            differences.append(f"classes: {checkpoint['classes']} in the file, {self._classes} here")
        old, new = checkpoint["metadata"].get("data_fingerprint"), self._metadata.get("data_fingerprint")
        if old != new:
            differences += self._data_differences(checkpoint, old, new)
        old_groups = _group_of(checkpoint["optimizer_state_dict"])
        new_groups = _group_of(self._step.optimizer.state_dict())
        differences += [
            f"parameter group of {name}: {old_groups.get(name, 'frozen')} in the file, {new_groups.get(name, 'frozen')} here"
            for name in sorted((old_groups.keys() | new_groups.keys()) & own.keys() & saved.keys())
            if old_groups.get(name) != new_groups.get(name)
        ]
        if differences:
            shown = "\n  ".join(differences[:20])
            raise CheckpointError(f"{path} belongs to another run, {len(differences)} differences:\n  {shown}")

    def _data_differences(self, checkpoint: Mapping[str, Any], old: Any, new: Any) -> list[str]:
        """Return what of the data is not as it was; nothing where the same samples were recorded in an older way."""
        changes = self._changes_since(old) if self._changes_since is not None and isinstance(old, str) else None
        if changes is not None:
            return [f"the data is read otherwise since: {change}" for change in changes]
        then, now = (config.get("data") or {} for config in (checkpoint["config"], self._config))
        keys = [key for key in now if key in then and then[key] != now[key]]
        shown = "".join(f"; data.{key}={then[key]!r:.80} in the file, {now[key]!r:.80} here" for key in keys)
        return [f"data fingerprint: {old} in the file, {new} here{shown}"]


def _group_of(optimizer_state: Mapping[str, Any]) -> dict[str, str]:
    """Return parameter name → name of its group, and whether it has no weight decay there."""
    return {
        name: f"{group['name']}{' (training.no_decay)' if group.get('no_decay') else ''}"
        for group in optimizer_state["param_groups"]
        for name in group["tensors"]
    }


def _with_current_rates(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the saved moments under the settings of today's config, so that another lr or weight decay takes effect.

    ``lr`` itself is set before each step; a run with no step left must show its last one.
    """
    fields = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    groups = [{**old, **new, "lr": old["lr"]} for old, new in zip(saved["param_groups"], fields, strict=True)]
    return {**saved, "param_groups": groups}
