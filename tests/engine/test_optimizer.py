import pytest
import torch
from torch import nn

from winnow.engine.optimizer import build_optimizer, freeze, scaled_lr
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
