"""The exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """A second set of weights, ``decay`` · itself + (1 − ``decay``) · the model's after each step.

    The decay warms up as min(decay, (1 + n) / (10 + n)) over n updates (TensorFlow's rule), so that a short run is not
    averaged with its random start. Buffers follow the model.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._model = model
        self._live = {name: value.detach() for name, value in model.state_dict().items()}
        self._average = {name: value.clone() for name, value in self._live.items()}
        learned = {name for name, value in model.named_parameters(remove_duplicate=False) if value.is_floating_point()}
        self._learned = [name for name in self._live if name in learned]
        self._copied = [name for name in self._live if name not in learned]

    @torch.no_grad()
    def update(self) -> None:
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(
            [self._average[name] for name in self._learned], [self._live[name] for name in self._learned], 1 - decay
        )
        for name in self._copied:
            self._average[name].copy_(self._live[name])

    @torch.no_grad()
    def begin_here(self) -> None:
        """Forget what was averaged: the model's weights are the average of this moment."""
        self.num_updates = 0
        for name, value in self._average.items():
            value.copy_(self._live[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside this context."""
        own = {name: value.clone() for name, value in self._live.items()}
        self._model.load_state_dict(self._average)
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def weights(self) -> dict[str, Tensor]:
        return self._average

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates, "weights": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_updates = state["num_updates"]
        for name, value in self._average.items():
            value.copy_(state["weights"][name])
