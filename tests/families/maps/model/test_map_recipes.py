"""The recipes of map models: what learns, and how fast."""

import pytest
import torch
from composed import compose_plain

from winnow.engine.optimizer import build_optimizer
from winnow.engine.settings import ParamGroup
from winnow.families.maps.frame import Region
from winnow.families.maps.lines import CLASSES
from winnow.families.maps.model.map_qformer import map_qformer, map_qformer_tiny

BUILDERS = {"map_qformer": map_qformer, "map_qformer_tiny": map_qformer_tiny}
RATES = {
    "model=map_qformer": {"backbone": 6e-5, "default": 6e-4},
    "+experiment=maps": {"backbone": 6e-5, "default": 6e-4},
    "+experiment=maps_original": {"qformer": 1e-5, "queries": 1e-4, "decoder": 1e-4, "default": 1e-5},
    "model=map_qformer_tiny": {"qformer": 3e-4, "default": 1.5e-3},
}


def built(config):
    """Return the network of a config, smaller."""
    values = {key: value for key, value in config["model"].items() if key != "_target_"}
    values["qformer"] |= {"num_layers": 1, "width": 24, "num_heads": 2, "ffn_width": 24}
    values["decoder"] |= {"num_layers": 1}
    builder = BUILDERS[config["model"]["_target_"].rpartition(".")[2]]
    return builder(CLASSES, None, 50, 20, Region(), **values | {"pretrained": False}).model


@pytest.mark.parametrize("choice", RATES)
def test_every_trainable_parameter_is_in_one_group_with_its_rate(choice):
    config = compose_plain(choice, *([] if choice.startswith("+") else ["data=map_synthetic"]))
    training, model = config["training"], built(config)
    groups = [ParamGroup(**group) for group in training["param_groups"] or []]
    optimizer = build_optimizer(torch.optim.AdamW, model, groups, training["optimizer"]["lr"])
    held = [name for group in optimizer.param_groups for name in group["tensors"]]
    assert sorted(held) == sorted(name for name, value in model.named_parameters() if value.requires_grad)
    assert {group["name"]: group["base_lr"] for group in optimizer.param_groups} == pytest.approx(RATES[choice])


def test_the_models_own_values_are_those_of_the_recipe_and_the_original_differs_where_it_should():
    own, recipe, original = (
        compose_plain(*choice)["training"]
        for choice in (["model=map_qformer", "data=map_synthetic"], ["+experiment=maps"], ["+experiment=maps_original"])
    )
    shared = ("amp", "clip_grad_norm", "param_groups", "ema")
    assert {key: own[key] for key in shared} == {key: recipe[key] for key in shared}
    assert own["optimizer"] == recipe["optimizer"]
    assert (recipe["clip_grad_norm"], original["clip_grad_norm"]) == (35.0, 0.1)
    for key in ("max_epochs", "batch_size", "scheduler"):
        assert recipe[key] == original[key]
    assert (recipe["max_epochs"], recipe["batch_size"], recipe["scheduler"]["warmup_steps"]) == (24, 4, 500)
    assert {training["optimizer"]["weight_decay"] for training in (own, recipe, original)} == {0.01}


def test_a_recipe_takes_another_model_and_other_data_from_the_command_line():
    config = compose_plain("+experiment=maps_original", "model=map_qformer_tiny", "data=map_rendered", "data.root=x")
    assert config["model"]["_target_"].endswith("map_qformer_tiny")
    assert (config["data"]["name"], config["training"]["clip_grad_norm"]) == ("map_rendered", 0.1)
