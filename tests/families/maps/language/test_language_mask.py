"""Who sees whom in the language model, and that a mask means the same under every attention."""

import pytest
import torch
from map_language_parts import language_settings

from winnow.families.maps.language.mask import structured_mask, visible_positions
from winnow.families.maps.language.weights import language_model

KINDS = [(kind, attention) for kind in ("llama", "qwen2", "qwen3") for attention in ("sdpa", "eager")]


def states(model, inputs, mask):
    with torch.no_grad():
        return model(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state


def made(kind, attention, **shape):
    torch.manual_seed(0)
    return language_model(language_settings({"model_type": kind, **shape}, llm_attention=attention)).eval()


def test_prefix_instances_and_points_see_what_is_said():
    seen = visible_positions(3, 2, 2)
    assert ["".join("x" if value else "." for value in row) for row in seen] == [
        "x........", "xx.......", "xxx......",  # the prefix is causal
        "xxxxx....", "xxxxx....",  # instances: the prefix and each other
        "xxxx.xx..", "xxxx.xx..", "xxx.x..xx", "xxx.x..xx",  # points: the prefix, their instance, its points
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "attention"), KINDS)
def test_a_prefix_alone_is_the_built_in_causal_result(kind, attention):
    model, inputs = made(kind, attention), torch.randn(2, 7, 32)
    causal = states(model, inputs, None)
    torch.testing.assert_close(states(model, inputs, structured_mask(7, 0, 0, torch.float32)), causal)
    torch.testing.assert_close(states(model, inputs, structured_mask(3, 2, 1, torch.float32))[:, :3], causal[:, :3])


@pytest.mark.parametrize(("kind", "attention"), KINDS)
def test_a_position_depends_on_what_it_sees_and_on_nothing_else(kind, attention):
    model, inputs = made(kind, attention, num_layers=1), torch.randn(1, 9, 32, requires_grad=True)
    mask = structured_mask(3, 2, 2, torch.float32)
    found = model(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state[0]
    reached = [
        torch.autograd.grad(row.square().sum(), inputs, retain_graph=True)[0][0].norm(dim=1) > 0 for row in found
    ]
    assert torch.equal(torch.stack(reached), visible_positions(3, 2, 2))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_masks_of_other_kinds_do_not_mean_that(attention):
    """What the additive mask is there for; when transformers changes this, the mask may be simpler."""
    model, inputs = made("llama", attention), torch.randn(1, 7, 32)
    causal, seen = states(model, inputs, None), visible_positions(7, 0, 0)[None, None]
    assert (states(model, inputs, seen.float()) - causal).abs().max() > 0.1
    if attention == "eager":
        assert (states(model, inputs, seen) - causal).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_mask_hides_in_every_number_format(dtype):
    mask = structured_mask(2, 1, 1, dtype)
    weights = (torch.zeros(4, 4, dtype=dtype) + mask[0, 0]).softmax(-1)
    assert torch.equal(weights > 0, visible_positions(2, 1, 1))
    assert mask.dtype is dtype
    assert mask.shape == (1, 1, 4, 4)
