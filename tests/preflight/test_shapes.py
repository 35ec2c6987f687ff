"""Memory from shapes alone: against a large language model's known figures, and against what a small one really takes."""

import pytest
import torch
from map_language_parts import language_settings
from torch.profiler import ProfilerActivity, profile

from winnow.checkpoints.shapes import is_shapes_only, shapes_only
from winnow.engine.precision import Precision
from winnow.errors import ConfigError
from winnow.families.maps.language.bridge import LanguageBridge
from winnow.families.maps.language.mask import structured_mask
from winnow.families.maps.language.weights import language_model
from winnow.preflight.shapes import held_by, held_in_forward, size_of

GIB = 2**30
FLOAT32 = Precision(torch.device("cpu"), None)


class LanguageModelAlone:
    """The language model on as many samples as the batch is, of so many positions; its outputs are not kept."""

    def __init__(self, model, num_positions):
        self.model, self._num_positions = model, num_positions

    def forward(self, num_samples):
        shape = (num_samples, self._num_positions, self.model.config.hidden_size)
        inputs = torch.zeros(shape, dtype=self.model.dtype, requires_grad=True)
        mask = structured_mask(self._num_positions - 630, 30, 20, self.model.dtype)
        return self.model(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state.sum()


class Bridge:
    def __init__(self, model, num_scene):
        self.model, self._num_scene = model, num_scene

    def forward(self, num_samples):
        scene = torch.zeros(num_samples, self._num_scene, 32, requires_grad=True)
        return self.model(scene, torch.zeros(num_samples, 100, 32))


def test_a_large_llama_has_its_known_figures():
    shape = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_layers": 32,
        "num_heads": 32,
        "num_key_value_heads": 32,
    }
    with shapes_only():
        assert is_shapes_only()
        model = language_model(language_settings({**shape, "vocab_size": 32000}, llm_dtype="bfloat16")).train()
        assert size_of(model.parameters()) / GIB == pytest.approx(12.3, rel=0.05)
        bridge = _Switch(model)
        activations, checkpointed = held_by(LanguageModelAlone(model, 2000), [1, 2], FLOAT32, [bridge])
    assert not is_shapes_only()
    assert activations.per_sample / GIB == pytest.approx(7.9, rel=0.05)
    assert checkpointed.per_sample / GIB == pytest.approx(0.5, rel=0.05)
    assert checkpointed.again / GIB == pytest.approx(7.9 / 32, rel=0.05)
    assert activations.of(4) == activations.fixed + 4 * activations.per_sample


class _Switch:
    """As LanguageBridge does it."""

    def __init__(self, llm):
        self.llm = llm

    activation_checkpointing = LanguageBridge.activation_checkpointing


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_small_model_takes_what_its_shapes_say(checkpointed, attention):
    """By the allocator's own count of what a forward pass leaves behind."""
    settings = language_settings({"hidden_size": 64, "num_layers": 3}, llm_attention=attention)
    model = LanguageBridge(settings, 32, 5, 20).train()
    model.activation_checkpointing = checkpointed
    task = Bridge(model, 200)
    task.forward(4)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        outputs = task.forward(4)
    taken = sum(event.self_cpu_memory_usage for event in watched.key_averages())
    with shapes_only():
        shaped = LanguageBridge(settings, 32, 5, 20).train()
        shaped.activation_checkpointing = checkpointed
        told, _ = held_in_forward(Bridge(shaped, 200), 4, FLOAT32)
    assert outputs.shape == (4, 100, 32)
    assert told == pytest.approx(taken, rel=0.03)


class Looking(Bridge):
    def forward(self, num_samples):
        outputs = super().forward(num_samples)
        return outputs if outputs.sum() > 0 else -outputs


def test_a_model_that_looks_at_values_can_not_be_told():
    with shapes_only():
        model = LanguageBridge(language_settings(), 32, 5, 20)
        with pytest.raises(ConfigError, match="forward pass of Looking depends on values, which shapes don't tell"):
            held_in_forward(Looking(model, 10), 1, FLOAT32)
