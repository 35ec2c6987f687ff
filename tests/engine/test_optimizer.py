import pytest
import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation
from torchvision.ops.misc import FrozenBatchNorm2d

from winnow.engine.optimizer import build_optimizer, freeze, scaled_lr, undecayed
from winnow.engine.settings import ParamGroup
from winnow.errors import ConfigError


def model():
    return nn.ModuleDict({"backbone": nn.Linear(2, 3), "neck": nn.Linear(3, 3), "head": nn.Linear(3, 1)})


def groups_of(*groups, lr=0.1):
    optimizer = build_optimizer(
        lambda chosen: torch.optim.AdamW(chosen, lr=lr), model(), [ParamGroup(**g) for g in groups], lr
    )
    return {group["name"]: group for group in optimizer.param_groups}


def test_the_first_matching_pattern_wins_and_the_rest_is_default():
    groups = groups_of(
        {"name": "slow", "pattern": "backbone|neck", "lr_scale": 0.1}, {"name": "heads", "pattern": "head|neck"}
    )
    assert {name: len(group["params"]) for name, group in groups.items()} == {"slow": 4, "heads": 2}
    assert groups["slow"]["lr"] == pytest.approx(0.01)
    assert groups["heads"]["lr"] == 0.1


def test_a_group_has_its_own_rate_and_decay():
    groups = groups_of({"name": "a", "pattern": "head", "lr": 0.5, "weight_decay": 0.25})
    assert (groups["a"]["base_lr"], groups["a"]["weight_decay"]) == (0.5, 0.25)
    assert groups["default"]["weight_decay"] != 0.25


def test_a_pattern_that_matches_nothing_is_an_error_that_shows_names():
    with pytest.raises(
        ConfigError, match=r"training.param_groups\[1\].pattern='transformer' matches none.*backbone.weight"
    ):
        groups_of({"name": "a", "pattern": "head"}, {"name": "b", "pattern": "transformer"})


def test_an_optimizer_that_refuses_its_settings_is_a_config_error():
    with pytest.raises(ConfigError, match="training.optimizer is refused by its class: .*beta"):
        build_optimizer(lambda groups: torch.optim.AdamW(groups, betas=(2.0, 0.9)), model(), None, 0.1)


def test_frozen_parameters_do_not_reach_the_optimizer():
    net = model()
    freeze(net, ["^backbone"])
    optimizer = build_optimizer(lambda groups: torch.optim.SGD(groups, lr=0.1), net, None, 0.1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@pytest.mark.parametrize(("patterns", "message"), [
    (["nowhere"], "training.freeze='nowhere' matches none"), ([""], "freezes every parameter"),
])  # fmt: skip
def test_freezing_nothing_or_everything_is_an_error(patterns, message):
    with pytest.raises(ConfigError, match=message):
        freeze(model(), patterns)


def test_the_linear_rule():
    assert scaled_lr(1e-4, 16, 64) == pytest.approx(4e-4)
    assert scaled_lr(1e-4, None, 64) == 1e-4


class ScaleNorm(nn.Module):
    """A normalisation of another library, told by its name."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))


class LayerNorm2d(nn.LayerNorm):
    """A class made from torch's."""


def a_bit_of_everything():
    return nn.ModuleDict({
        "linear": nn.Linear(2, 2), "batch": nn.BatchNorm2d(2), "instance": nn.InstanceNorm1d(2, affine=True),
        "group": nn.GroupNorm(1, 2), "layer": LayerNorm2d(2), "rms": nn.RMSNorm(2), "own": ScaleNorm(), "lstm": nn.LSTM(2, 2),
        "attention": nn.MultiheadAttention(2, 1, add_bias_kv=True), "frozen": FrozenBatchNorm2d(2),
        "block": Conv2dNormActivation(2, 2), "plain": nn.LayerNorm(2, elementwise_affine=False),
    })  # fmt: skip


def test_what_belongs_to_a_norm_is_told_by_its_module():
    assert undecayed(a_bit_of_everything(), ["norm"]) == {
        "batch.weight", "batch.bias", "instance.weight", "instance.bias", "group.weight", "group.bias", "layer.weight",
        "layer.bias", "rms.weight", "own.scale", "block.1.weight", "block.1.bias",
    }  # fmt: skip


def test_biases_are_those_of_every_module_by_whatever_name_it_gives_them():
    assert undecayed(a_bit_of_everything(), ["bias"]) == {
        "linear.bias", "batch.bias", "instance.bias", "group.bias", "layer.bias", "block.1.bias", "lstm.bias_ih_l0",
        "lstm.bias_hh_l0", "attention.in_proj_bias", "attention.bias_k", "attention.bias_v", "attention.out_proj.bias",
    }  # fmt: skip


def test_each_group_is_split_in_two_and_only_the_second_does_not_decay():
    chosen = [ParamGroup(name="slow", pattern="backbone", lr_scale=0.1, weight_decay=0.3)]
    optimizer = build_optimizer(
        lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.2), model(), chosen, 0.1, ["bias"]
    )
    shown = [
        (group["name"], group["tensors"], group["weight_decay"], group["lr"], group["base_lr"])
        for group in optimizer.param_groups
    ]
    assert shown == [
        ("slow", ["backbone.weight"], 0.3, pytest.approx(0.01), pytest.approx(0.01)),
        ("slow", ["backbone.bias"], 0.0, pytest.approx(0.01), pytest.approx(0.01)),
        ("default", ["neck.weight", "head.weight"], 0.2, 0.1, 0.1),
        ("default", ["neck.bias", "head.bias"], 0.0, 0.1, 0.1),
    ]


def test_without_the_list_groups_are_what_they_were():
    optimizer = build_optimizer(lambda groups: torch.optim.AdamW(groups, lr=0.1), model(), None, 0.1, [])
    (group,) = optimizer.param_groups
    assert group.keys() - optimizer.defaults.keys() == {"params", "name", "base_lr", "tensors"}
