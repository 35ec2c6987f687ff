import pytest
import torch
from foreign_files import layouts, prefixed, save, trained
from torch import nn

from winnow.checkpoints.layouts import aligned, read_foreign, without_wrappers
from winnow.errors import CheckpointError


@pytest.fixture(scope="module")
def program():
    return trained(nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1)), torch.ones(4, 5))


@pytest.fixture(scope="module")
def read(program, tmp_path_factory):
    """Return each layout as it is read back."""
    folder = tmp_path_factory.mktemp("layouts")
    return {
        name: read_foreign(save(content, folder / f"{index}.pth"), "a checkpoint", CheckpointError)
        for index, (name, content) in enumerate(layouts(*program).items())
    }


@pytest.mark.parametrize("name", layouts(nn.Linear(1, 1), torch.optim.AdamW(nn.Linear(1, 1).parameters())))
def test_the_weights_of_every_layout_are_found(program, read, name):
    own = program[0].state_dict()
    weights, _ = aligned(read[name].weights, own)
    assert weights.keys() == own.keys()
    assert all(weights[key].equal(own[key]) for key in own)


@pytest.mark.parametrize(("name", "epoch", "step", "has_optimizer", "config"), [
    ("model", 2, None, False, {"lr": 0.5}),
    ("with scheduler and flat config", 2, 12, True, {"lr": 0.5, "batch_size": 4}),
    ("without scheduler, nested config", 2, None, True, {"training": {"optimizer": {"lr": 0.5}}, "model": {"depth": 3}}),
    ("no config", 2, None, True, None),
    ("lightning", 2, 12, True, {"lr": 0.01, "channels": (8, 16)}),
    ("bare", None, None, False, None),
])  # fmt: skip
def test_what_else_a_layout_holds_is_found(read, name, epoch, step, has_optimizer, config):
    file = read[name]
    assert (file.epoch, file.step, file.config) == (epoch, step, config)
    assert (file.optimizer is not None) == has_optimizer
    assert (file.scheduler is not None) == (name in ("with scheduler and flat config", "lightning"))


def test_the_average_is_found_below_its_wrapper_and_counter(program, read):
    assert read["averaged"].average.keys() == program[0].state_dict().keys()
    assert read["no config"].average is None


def test_what_nobody_understands_is_listed(read):
    assert read["state_dict"].unread == ("best",)
    assert read["lightning"].unread == ("loops", "callbacks", "hparams_name")


def test_the_parts_of_a_model_are_put_together(tmp_path):
    parts = {"encoder_state_dict": nn.Linear(2, 2).state_dict(), "head_state_dict": nn.Linear(2, 1).state_dict()}
    file = read_foreign(save(parts, tmp_path / "parts.pth"), "a checkpoint", CheckpointError)
    assert set(file.weights) == {"encoder.weight", "encoder.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize(("content", "words"), [
    ([1, 2], "but a list"),
    ({"epoch": 3, "args": {}}, "holds no tensors by name: found 'epoch', 'args'; weights are looked for at the top, under"),
    ({"model": {"config": 3}}, "found 'model'"),
    ({}, "found nothing"),
])  # fmt: skip
def test_a_file_without_weights_says_what_it_holds(tmp_path, content, words):
    with pytest.raises(CheckpointError, match=words):
        read_foreign(save(content, tmp_path / "file.pth"), "a checkpoint", CheckpointError)


@pytest.mark.parametrize(("names", "stripped"), [
    (["module.a", "module.b"], ["a", "b"]),
    (["_orig_mod.module.a"], ["a"]),
    (["module._orig_mod.a"], ["a"]),
    (["backbone._orig_mod.a", "head.b"], ["backbone.a", "head.b"]),
    (["module.a", "other.b"], ["module.a", "other.b"]),
    (["n_averaged", "module.a"], ["a"]),
    (["a._orig_mod.x", "a.x"], ["a._orig_mod.x", "a.x"]),
])  # fmt: skip
def test_wrappers_are_taken_off_names_where_it_is_certain(names, stripped):
    assert list(without_wrappers(dict.fromkeys(names, torch.ones(1)))) == stripped


def test_a_prefix_is_changed_only_where_more_fits():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    own, part = model.state_dict(), nn.Linear(2, 2).state_dict()
    assert aligned(own, own) == (own, None)
    assert list(aligned(part, own)[0]) == ["encoder.weight", "encoder.bias"]
    inside = {**prefixed("detector.", own), "criterion.weight": torch.ones(3)}
    weights, words = aligned(inside, own)
    assert set(weights) == {*own, "criterion.weight"}
    assert words == "'detector.' taken away from 4 names"
    stranger = {"a.weight": torch.ones(7), "a.bias": torch.ones(7)}
    assert aligned(stranger, own) == (stranger, None)
