"""A frozen language model between scene tokens and map queries: into its width, through it under a structured mask, and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winnow.checkpoints.shapes import is_shapes_only
from winnow.families.maps.language.mask import structured_mask
from winnow.families.maps.language.prompt import fixed_ids, prompt_ids
from winnow.families.maps.language.settings import LanguageSettings
from winnow.families.maps.language.weights import language_model


class LanguageBridge(nn.Module):
    """Adds to each map query what the language model makes of it behind the prompt and the scene.

    The sequence is prompt, scene tokens, instances, points. An instance's position is the mean of its points' queries; what the
    model gives there goes to all its points. Projections are scaled to the size of the model's own word vectors.
    """

    def __init__(self, settings: LanguageSettings, width: int, num_instances: int, num_points: int) -> None:
        super().__init__()
        self.num_instances, self.num_points = num_instances, num_points
        self.llm: Any = language_model(settings)
        hidden = self.llm.config.hidden_size
        path = settings.llm_path
        ids = (
            fixed_ids(self.llm.config.vocab_size)
            if path is None
            else prompt_ids(settings.prompt, Path(path).expanduser())
        )
        self.register_buffer("prompt", torch.tensor(ids), persistent=False)
        scale = _word_scale(self.llm)
        self.scene_in, self.query_in = _projection(width, hidden, scale), _projection(width, hidden, scale)
        self.query_out = _projection(hidden, width, 1.0)
        self.activation_checkpointing = settings.activation_checkpointing

    @property
    def activation_checkpointing(self) -> bool:
        """Tell whether a backward pass computes each layer of the language model again instead of keeping what it needs of it."""
        return self._checkpoints_activations

    @activation_checkpointing.setter
    def activation_checkpointing(self, value: bool) -> None:
        self._checkpoints_activations = value
        renamed = f"activation_checkpointing_{'enable' if value else 'disable'}"  # of 5.x; before it was gradient_…
        switch = getattr(self.llm, renamed if hasattr(self.llm, renamed) else renamed.replace("activation", "gradient"))
        switch(*[{"use_reentrant": False}] * value)

    def forward(self, scene: Tensor, queries: Tensor) -> Tensor:
        """Return (B, I·P, C) of ``scene`` (B, S, C) and ``queries`` (B, I·P, C), in which the points of an instance are beside
        each other."""
        size, dtype = len(scene), self.llm.dtype
        per_instance = queries.unflatten(1, (self.num_instances, self.num_points))
        words = self.llm.get_input_embeddings()(self.prompt).expand(size, -1, -1)
        parts = [words, self.scene_in(scene), self.query_in(per_instance.mean(2)), self.query_in(queries)]
        sequence = torch.cat([part.to(dtype) for part in parts], 1)
        num_prefix = words.shape[1] + scene.shape[1]
        mask = structured_mask(num_prefix, self.num_instances, self.num_points, dtype, sequence.device)
        found = self.llm(inputs_embeds=sequence, attention_mask=mask, use_cache=False).last_hidden_state[:, num_prefix:]
        found = self.query_out(found.to(queries.dtype))
        instances, points = found.split([self.num_instances, self.num_instances * self.num_points], 1)
        return queries + points + instances.repeat_interleave(self.num_points, 1)


def _projection(inputs: int, outputs: int, scale: float) -> nn.Sequential:
    """Return a norm and a linear layer whose outputs are about ``scale`` large."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=scale / math.sqrt(inputs))
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(inputs), linear)


def _word_scale(llm: Any) -> float:
    """Return the root mean square of the model's word vectors."""
    if is_shapes_only():
        return 1.0
    return float(llm.get_input_embeddings().weight.float().square().mean().sqrt())
