"""The exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from winnow.checkpoints.state_dicts import frozen_parameters


class Ema:
    """A second set of weights, ``decay`` · itself + (1 − ``decay``) · the model's after each step.

    The decay warms up as min(decay, (1 + n) / (10 + n)) over n updates (TensorFlow's rule), so that a short run is not
    averaged with its random start. Buffers follow the model. What is frozen is its own average: it is not held twice.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._live = {name: value.detach() for name, value in model.state_dict().items()}
        frozen = frozen_parameters(model)
        self._average = {name: value.clone() for name, value in self._live.items() if name not in frozen}
        learned = {name for name, value in model.named_parameters(remove_duplicate=False) if value.is_floating_point()}
        self._learned = [name for name in self._average if name in learned]
        self._copied = [name for name in self._average if name not in learned]

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
        self._copy(self._live, self._average)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights into the model inside this context."""
        own = {name: self._live[name].clone() for name in self._average}
        self._copy(self._average, self._live)
        try:
            yield
        finally:
            self._copy(own, self._live)

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights by name, the frozen ones as the model's own tensors."""
        return {name: self._average.get(name, value) for name, value in self._live.items()}

    def own_weights(self) -> list[Tensor]:
        """Return what is held besides the model's tensors."""
        return list(self._average.values())

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates, "weights": self.weights()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; the model holds its own weights of that moment already."""
        self.num_updates = state["num_updates"]
        for name, live in self._live.items():
            # Until frozen weights were left out, the average of a run that took them from training.init_from came near to them
            # only by and by; such a run goes on as it was.
            if name not in self._average and not torch.equal(state["weights"][name].to(live), live):
                self._average[name] = live.clone()
                (self._learned if live.is_floating_point() else self._copied).append(name)
        self._copy(state["weights"], self._average)

    @torch.no_grad()
    def _copy(self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        for name in self._average:
            target[name].copy_(source[name])
