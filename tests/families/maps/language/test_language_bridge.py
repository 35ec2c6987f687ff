"""Scene tokens and map queries through a frozen language model."""

import sys

import pytest
import torch
from composed import compose_plain
from map_language_parts import language_settings

from winnow.checkpoints.state_dicts import frozen_parameters
from winnow.engine.ema import Ema
from winnow.engine.frozen import changing_tensors
from winnow.errors import ConfigError
from winnow.families.maps.language.bridge import LanguageBridge
from winnow.families.maps.language.prompt import fixed_ids
from winnow.families.maps.language.settings import LanguageSettings
from winnow.settings import build_settings

WIDTH, INSTANCES, POINTS = 16, 3, 4


def bridge(shape=(), **values):
    torch.manual_seed(1)
    return LanguageBridge(language_settings(shape, **values), WIDTH, INSTANCES, POINTS).train()


def inputs():
    drawn = torch.Generator().manual_seed(2)
    scene = torch.randn(2, 5, WIDTH, generator=drawn, requires_grad=True)
    return scene, torch.randn(2, INSTANCES * POINTS, WIDTH, generator=drawn, requires_grad=True)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_gradients_flow_through_to_the_scene_and_none_into_the_model(kind):
    made, (scene, queries) = bridge({"model_type": kind}), inputs()
    before = {name: value.clone() for name, value in made.llm.state_dict().items()}
    made(scene, queries).square().sum().backward()
    assert scene.grad.norm(dim=-1).min() > 1e-3 * scene.grad.norm(dim=-1).max()  # each token has a part
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in made.llm.parameters())
    assert all(p.grad.norm() > 0 for name, p in made.named_parameters() if not name.startswith("llm."))
    torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], 0.1).step()
    assert all(torch.equal(value, before[name]) for name, value in made.llm.state_dict().items())


def test_queries_see_the_scene_and_points_only_their_own_instance():
    made, (scene, queries) = bridge({"num_layers": 1}), inputs()
    found = made(scene, queries)
    assert (made(scene.detach() + torch.randn(WIDTH), queries) - found).norm(dim=-1).min() > 0.01
    moved = queries.detach().clone()
    moved[:, POINTS] += torch.randn(
        WIDTH
    )  # of the second instance: by way of the instances it reaches all, its own more so
    change = (made(scene, moved) - found).norm(dim=-1)[0].unflatten(0, (INSTANCES, POINTS))
    assert change[1].min() > 1.2 * change[[0, 2]].max()
    torch.testing.assert_close(change[0], change[0][:1].expand(POINTS))  # another instance's points: through it alone


def test_a_query_keeps_what_it_was_beside_what_comes_out():
    made, (scene, queries) = bridge(), inputs()
    torch.nn.init.zeros_(made.query_out[1].weight)
    assert torch.equal(made(scene, queries), queries)


def test_activation_checkpointing_changes_no_bit():
    made, (scene, queries) = bridge(), inputs()
    made(scene, queries).square().sum().backward()
    expected = [scene.grad, *(p.grad for p in made.parameters() if p.requires_grad)]
    made.zero_grad()
    scene.grad, made.activation_checkpointing = None, True
    calls = []
    made.llm.layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    made(scene, queries).square().sum().backward()
    assert len(calls) == 2  # computed again
    found = [scene.grad, *(p.grad for p in made.parameters() if p.requires_grad)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    made.activation_checkpointing = False
    made(scene, queries).square().sum().backward()
    assert len(calls) == 3


def test_the_frozen_model_is_neither_averaged_nor_sent_to_ranks():
    made = bridge()
    frozen = {name: value for name, value in made.named_parameters() if name.startswith("llm.")}
    assert frozen_parameters(made).keys() == frozen.keys()
    held = {tensor.data_ptr() for tensor in [*Ema(made, 0.9).own_weights(), *changing_tensors(made)]}
    assert not held & {value.data_ptr() for value in frozen.values()}
    assert sum(t.numel() for t in Ema(made, 0.9).own_weights()) < sum(v.numel() for v in frozen.values())


def test_a_model_in_bfloat16_takes_and_gives_float32():
    made, (scene, queries) = bridge(llm_dtype="bfloat16"), inputs()
    assert made.llm.dtype is torch.bfloat16
    found = made(scene, queries)
    found.square().sum().backward()
    assert found.dtype is torch.float32
    assert made.scene_in[1].weight.grad.norm() > 0
    torch.testing.assert_close(found, bridge()(scene, queries), atol=0.2, rtol=0.1)


def test_a_random_model_has_no_tokenizer_and_gets_fixed_tokens():
    assert bridge().prompt.tolist() == fixed_ids(32) == bridge(prompt="anything").prompt.tolist()
    assert len(set(fixed_ids(32))) == 8
    assert 0 <= min(fixed_ids(16)) <= max(fixed_ids(16)) < 16


def test_what_a_random_model_adds_goes_by_the_scene_with_the_shipped_initialiser_only():
    shipped = compose_plain("model=map_qformer_tiny", "data=map_synthetic")["model"]["llm_random"]
    torch.manual_seed(0)
    queries, scenes = torch.randn(1, INSTANCES * POINTS, WIDTH), torch.randn(2, 96, WIDTH)
    part = {}
    for width in (shipped["initializer_range"], 0.02):
        made = bridge({**shipped, "initializer_range": width})
        with torch.no_grad():
            one, other = made(scenes, queries.expand(2, -1, -1)) - queries
        part[width] = (one - other).norm() / (one.norm() * 2**0.5)
    assert part[0.02] < 0.4 < 0.5 < part[shipped["initializer_range"]]


def test_projections_come_near_to_the_words_in_size():
    made, (scene, _) = bridge({"hidden_size": 64}), inputs()
    words = made.llm.embed_tokens.weight.square().mean().sqrt()
    assert 0.6 < made.scene_in(scene).square().mean().sqrt() / words < 1.6


def test_lora_trains_its_matrices_alone():
    pytest.importorskip("peft")
    made, (scene, queries) = bridge(llm="lora", llm_dtype="bfloat16"), inputs()
    trained = {name: p for name, p in made.llm.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2  # two matrices, two targets, two layers
    assert all("lora_" in name and p.dtype is torch.float32 for name, p in trained.items())
    made(scene, queries).square().sum().backward()
    assert {name for name, p in made.llm.named_parameters() if p.grad is not None} == trained.keys()
    assert scene.grad.norm() > 0


def test_lora_names_a_package_or_a_target_that_is_not_there(monkeypatch):
    if "peft" in sys.modules or pytest.importorskip("peft"):
        with pytest.raises(ConfigError, match=r"model\.lora\.targets=\['wrong'\]"):
            bridge(llm="lora", lora={"rank": 2, "alpha": 4, "targets": ["wrong"]})
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"model\.llm=lora needs the package peft .*pip install -e '\.\[maps\]'"):
        bridge(llm="lora")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"llm": "none"}, "llm=none with bypass=false"),
        ({"llm": "thawed"}, "model.llm"),
        ({"prompt": ""}, "model.prompt"),
        ({"llm_layers": 0}, "model.llm_layers"),
        (
            {"llm_random": {**language_settings().llm_random.model_dump(), "num_heads": 3}},
            "heads must have an even width",
        ),
    ],
)
def test_wrong_settings_are_named(values, message):
    given = {**language_settings().model_dump(), **values}
    with pytest.raises(ConfigError, match=message):
        build_settings(LanguageSettings, given, "model")


def test_more_layers_than_there_are_and_a_path_that_is_not_there():
    with pytest.raises(ConfigError, match="llm_layers=3, but the model has 2"):
        bridge(llm_layers=3)
    with pytest.raises(ConfigError, match="'nowhere' is neither a folder of transformers"):
        bridge(llm_path="nowhere")
    assert len(bridge(llm_layers=1).llm.layers) == 1
