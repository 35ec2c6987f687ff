"""One set of gradients and loss terms for all ranks: the sums over what each rank computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from winnow.engine.ranks import Ranks


class GradientSum:
    """Adds up the gradients of ``parameters`` after the backward passes of a step.

    A sum, as terms are already divided by the count of the whole step. A rank without a sample, or one whose samples leave
    a parameter unused, adds nothing; a parameter that no rank used keeps no gradient, as with one rank.
    """

    def __init__(self, ranks: Ranks, parameters: Sequence[nn.Parameter]) -> None:
        self._ranks = ranks
        self._parameters = parameters
        self._names: list[str] = []

    def __call__(self, terms: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Return the loss terms of all ranks, added up by name; ``terms`` of this rank are empty where it had no sample."""
        if self._ranks.size == 1:
            return dict(terms)
        self._agree_on_names(terms)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        # What is to be known of all ranks rides along with the gradients: each further message costs its own latency.
        is_used = torch.tensor([float(parameter.grad is not None) for parameter in self._parameters], device=device)
        own = [terms[name].float() if terms else is_used.new_zeros(()) for name in self._names]
        rider = torch.cat([torch.stack(own), is_used])
        self._ranks.sum_tensors([*gradients, rider])
        used = rider[len(self._names) :].tolist()
        for parameter, gradient, uses in zip(self._parameters, gradients, used, strict=True):
            parameter.grad = gradient if uses else None
        return dict(zip(self._names, rider[: len(self._names)].unbind(), strict=True))

    def _agree_on_names(self, terms: Mapping[str, Tensor]) -> None:
        if not self._names:
            named = self._ranks.gather(list(terms))
            self._names = self._ranks.broadcast(next((names for names in named if names), []))
