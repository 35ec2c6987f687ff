"""Where a run stands: everything the loop remembers besides weights and optimizer, explicit both ways."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from winnow.engine.settings import Objective

logger = logging.getLogger(__name__)


@dataclass
class Best:
    """The best value of the objective and where it was reached."""

    metric: str
    value: float
    epoch: int
    step: int


@dataclass
class Cost:
    """What a run has used: images seen, the same in images of 640×640 pixels, and wall seconds."""

    images: int = 0
    images_640: float = 0.0
    seconds: float = 0.0

    def add(self, num_images: int, num_pixels: int) -> None:
        self.images += num_images
        self.images_640 += num_pixels / 640**2

    def metrics(self) -> dict[str, float]:
        return {f"cost/{name}": float(value) for name, value in asdict(self).items()}


class LossSums:
    """Sums of detached loss terms over steps, on the device: reading them costs one synchronisation, adding none."""

    def __init__(self) -> None:
        self.num_steps = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        self.num_steps += 1
        for name, term in terms.items():
            self._sums[name] = self._sums[name] + term if name in self._sums else term.clone()

    def means(self) -> dict[str, float]:
        """Return ``train/NAME`` of every term and ``train/loss`` of their sum; empty before the first step."""
        if self.num_steps == 0:
            return {}
        values = (torch.stack(list(self._sums.values())).double() / self.num_steps).tolist()
        means = {f"train/{name}": value for name, value in zip(self._sums, values, strict=True)}
        return {"train/loss": sum(values), **means}

    def clear(self) -> None:
        self.num_steps = 0
        self._sums = {}

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.num_steps = state["num_steps"]
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}


@dataclass
class TrainState:
    """``epoch`` finished epochs, ``step`` updates, ``sample`` samples already taken from the epoch in progress.

    ``worst``: the objective's worst value, where its metric states one. ``best_metrics`` are all numbers of the evaluation that
    is best, ``evaluation`` those of the last one; ``reached`` is the value that patience measures a gain from, None before
    any.
    """

    objective: Objective
    worst: float | None = None
    epoch: int = 0
    step: int = 0
    sample: int = 0
    best: Best | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, float] = field(default_factory=dict)
    reached: float | None = None
    evaluations_without_gain: int = 0
    cost: Cost = field(default_factory=Cost)
    metrics: dict[str, float] = field(default_factory=dict)
    interval: LossSums = field(default_factory=LossSums)
    epoch_losses: LossSums = field(default_factory=LossSums)

    def take_note(self, metrics: Mapping[str, float], min_delta: float) -> bool:
        """Take note of an evaluation; True where it is the best so far. ``min_delta`` is what counts as a gain for patience.

        An objective that this evaluation could not give (no truth of that size, a NaN) never is the best.
        """
        value = metrics.get(self.objective.metric, math.nan)
        self.evaluation = dict(metrics)
        self._count_patience(value, min_delta)
        if value != value or not self._is_best(value, metrics):
            return False
        self.best = Best(self.objective.metric, value, self.epoch, self.step)
        self.best_metrics = dict(metrics)
        return True

    def _is_best(self, value: float, metrics: Mapping[str, float]) -> bool:
        """Return whether ``value`` beats the best. Of equal ones the one with the lower ``val/loss`` does, the later one where
        neither is lower."""
        if self.best is None or value == self.best.value:
            return not _val_loss(self.best_metrics) < _val_loss(metrics)
        return self._gain(value, self.best.value) > 0

    def _count_patience(self, value: float, min_delta: float) -> None:
        """Count an evaluation without gain; none before the first that differs from the metric's worst value."""
        has_begun = self.reached is not None or self.evaluations_without_gain > 0
        if value == self.worst and not has_begun:
            return
        if value == value and (self.reached is None or self._gain(value, self.reached) > min_delta):
            self.reached, self.evaluations_without_gain = value, 0
        else:
            self.evaluations_without_gain += 1

    def _gain(self, value: float, before: float) -> float:
        return value - before if self.objective.mode == "max" else before - value

    def state_dict(self) -> dict[str, Any]:
        return {
            "sample": self.sample,
            "mode": self.objective.mode,
            "best_metrics": dict(self.best_metrics),
            "evaluation": dict(self.evaluation),
            "reached": self.reached,
            "evaluations_without_gain": self.evaluations_without_gain,
            "cost": asdict(self.cost),
            "interval": self.interval.state_dict(),
            "epoch_losses": self.epoch_losses.state_dict(),
        }

    def load_checkpoint(self, checkpoint: Mapping[str, Any], device: torch.device) -> None:
        """Restore from a whole checkpoint: its own keys hold what a reader of the file looks for, ``progress`` the
        rest.

        A best value of another objective is forgotten, for the two do not compare.
        """
        progress = checkpoint["progress"]
        self.epoch, self.step, self.sample = checkpoint["epoch"], checkpoint["step"], progress["sample"]
        if (checkpoint["metric"], progress["mode"]) == (self.objective.metric, self.objective.mode):
            self.best = Best(**_known(Best, checkpoint["best"])) if checkpoint["best"] else None
            self._load_best(progress)
        else:
            was, now = f"{progress['mode']} {checkpoint['metric']}", f"{self.objective.mode} {self.objective.metric}"
            logger.warning("the objective was %s and is %s: best starts anew at the next evaluation", was, now)
        self.metrics = dict(checkpoint["metrics"])
        self.evaluation = dict(progress.get("evaluation", self.metrics))
        self.cost = Cost(**_known(Cost, progress["cost"]))
        self.interval.load_state_dict(progress["interval"], device)
        self.epoch_losses.load_state_dict(progress["epoch_losses"], device)

    def _load_best(self, progress: Mapping[str, Any]) -> None:
        """Restore what belongs to ``best``; until it was saved apart, patience measured gains from the best value."""
        best = self.best
        self.best_metrics = dict(progress.get("best_metrics", {best.metric: best.value} if best else {}))
        self.reached = progress.get("reached", best.value if best else None)
        self.evaluations_without_gain = progress["evaluations_without_gain"]


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``values`` that ``kind`` has; a later version may have written more."""
    return {each.name: values[each.name] for each in fields(kind) if each.name in values}


def _val_loss(metrics: Mapping[str, float]) -> float:
    """Return ``val/loss``, ∞ where there is none."""
    loss = metrics.get("val/loss", math.inf)
    return loss if loss == loss else math.inf
