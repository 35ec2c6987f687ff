"""Learning curves to try pruners on: simulated ones with a known optimum, and recorded ones read from a file.

A source gives a ``space`` for Optuna, ``draw(params, number, seed)`` (the values per epoch that a run would report), the
``truth(params, number, seed)`` that the run is really worth, and the ``optimum`` of that. No curves of a source but their noise
depend on anything but the seed, so that searches with the same seed can be compared in pairs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

PEAK = 0.6
FAMILIES = ("crossing", "not crossing", "cosine", "heavy-tailed")
Params = Mapping[str, Any]


class CurveSource(Protocol):
    @property
    def epochs(self) -> int: ...

    @property
    def num_trials(self) -> int: ...

    @property
    def optimum(self) -> float: ...

    @property
    def space(self) -> dict[str, BaseDistribution]: ...

    def draw(self, params: Params, number: int, seed: int) -> Sequence[float]: ...

    def truth(self, params: Params, number: int, seed: int) -> float: ...

    def seconds_per_epoch(self, params: Params) -> float: ...


@dataclass(frozen=True)
class SimulatedCurves:
    """One landscape: ``family`` says how curves rise, ``seed`` where its optimum lies and how steep it is around it.

    The value at the last epoch, without noise, is a smooth function of learning rate, weight decay, augmentation and batch
    size, with a cliff at high learning rates. A run's luck (one number per run) and its noise (one per epoch) are on top.
    """

    family: str
    seed: int
    epochs: int = 50
    num_trials: int = 64
    optimum: float = PEAK

    @property
    def space(self) -> dict[str, BaseDistribution]:
        return {
            "lr": FloatDistribution(1e-5, 1e-1, log=True),
            "weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
            "augmentation": FloatDistribution(0.0, 1.0),
            "batch_size": CategoricalDistribution([8, 16, 32, 64]),
        }

    def truth(self, params: Params, number: int = 0, seed: int = 0) -> float:
        rng = np.random.default_rng([7, self.seed])
        centre, width = rng.uniform(0.3, 0.7, 4), rng.uniform(0.5, 1.5, 4)
        lr, decay, augmentation, batch = _unit(params)
        batch_centre = round(3 * centre[3]) / 3
        # A larger batch wants a larger learning rate.
        off = lr - centre[0] - 0.2 * (batch - batch_centre)
        loss = 1.2 * width[0] * off**2 + 0.15 * width[1] * (decay - centre[1]) ** 2
        loss += 0.3 * width[2] * (augmentation - centre[2]) ** 2 + 0.08 * width[3] * abs(batch - batch_centre)
        cliff = 1 / (1 + math.exp(-(off - 0.3) / 0.03))
        return max(0.01, (PEAK - loss) * (1 - 0.9 * cliff))

    def draw(self, params: Params, number: int, seed: int) -> list[float]:
        rng = np.random.default_rng([11, self.seed, seed, number])
        level = self.truth(params) + 0.005 * rng.standard_normal()
        noise = 0.012 * rng.standard_normal(self.epochs)
        if self.family == "heavy-tailed":
            level -= 0.02 * rng.pareto(2.5) if rng.random() < 0.3 else 0.0
            noise = 0.008 * rng.standard_t(2.0, self.epochs)
        values = level * self.shape(params) + noise
        return [float(value) for value in np.clip(values, 0.0, 1.0)]

    def shape(self, params: Params) -> np.ndarray:
        """Return the share of the last value reached after each epoch [epochs]; 1 at the end."""
        lr, _, augmentation, _ = _unit(params)
        t = np.arange(1, self.epochs + 1)
        if self.family == "not crossing":
            rise = 1 - np.exp(-t / 9)
        elif self.family == "cosine":
            # While the rate is still high the weights are too noisy: the higher it began, the more is gained by annealing.
            annealed = 1 - (0.1 + 0.5 * lr) * (1 + np.cos(np.pi * t / self.epochs)) / 2
            rise = (1 - np.exp(-t / (3 + 6 * (1 - lr)))) * annealed
        else:
            # A low rate and strong augmentation learn slowly, and not therefore worse.
            rise = 1 - np.exp(-t / (2 * 6 ** (0.6 * (1 - lr) + 0.9 * augmentation)))
        return rise / rise[-1]

    def seconds_per_epoch(self, params: Params) -> float:
        return 1.3 - 0.6 * _unit(params)[3]


@dataclass(frozen=True)
class RecordedCurves:
    """Real runs, met in an order that the seed draws; ``runs`` is a list of {params, values per epoch}, larger is better."""

    runs: tuple[dict[str, Any], ...]
    seed: int

    @classmethod
    def read(cls, path: Path, seed: int) -> RecordedCurves:
        return cls(tuple(json.loads(path.read_text())), seed)

    @property
    def space(self) -> dict[str, BaseDistribution]:
        return {}

    @property
    def num_trials(self) -> int:
        return len(self.runs)

    @property
    def epochs(self) -> int:
        return max(len(run["values"]) for run in self.runs)

    @property
    def optimum(self) -> float:
        return max(_end(run) for run in self.runs)

    def draw(self, params: Params, number: int, seed: int) -> list[float]:
        return [math.nan if value is None else value for value in self._run(number)["values"]]

    def truth(self, params: Params, number: int, seed: int) -> float:
        return _end(self._run(number))

    def seconds_per_epoch(self, params: Params) -> float:
        return 1.0

    def _run(self, number: int) -> dict[str, Any]:
        return self.runs[np.random.default_rng([13, self.seed]).permutation(len(self.runs))[number]]


def _end(run: dict[str, Any]) -> float:
    return float(np.mean(run["values"][-3:]))


def _unit(params: Params) -> tuple[float, float, float, float]:
    """Return the parameters on [0, 1]."""
    lr, decay = (math.log10(params["lr"]) + 5) / 4, (math.log10(params["weight_decay"]) + 6) / 5
    return lr, decay, params["augmentation"], (math.log2(params["batch_size"]) - 3) / 3
