import json

import pytest
import torch
from torch import nn

from winnow.checkpoints.initial import StageWeights, initial_weights, is_under, load_initial_weights, write_report
from winnow.errors import ConfigError, WeightsError


def model(**sizes):
    return nn.ModuleDict({name: nn.Linear(2, size) for name, size in sizes.items()})


@pytest.fixture
def weights(tmp_path):
    """Write the weights of a model with a body, a first head and an old one."""
    path = tmp_path / "first.pth"
    torch.save(model(body=2, head=3, old=1).state_dict(), path)
    return path


@pytest.mark.parametrize("may_differ", [["head", "new", "old"], ["head.weight", "head.bias", "new", "old"], None])
def test_what_a_stage_allows_to_differ_starts_from_random_values(weights, may_differ):
    report = load_initial_weights(model(body=2, head=5, new=1), weights, may_differ)
    assert report.matched == 2
    assert report.missing == ("new.bias", "new.weight")
    assert report.reshaped == ("head.bias", "head.weight")
    assert report.unexpected == ("old.bias", "old.weight")


@pytest.mark.parametrize(("may_differ", "listed"), [
    (["head", "old"], "2 missing (in the model only): new.bias, new.weight\n"),
    (["new", "old"], "2 reshaped: head.bias, head.weight\n"),
    (["new", "head"], "2 unexpected (in the weights only): old.bias, old.weight\n"),
    (["new", "old", "hea"], "2 reshaped: head.bias, head.weight\n"),
    (["new.weight", "old", "head"], "1 missing (in the model only): new.bias\n"),
])  # fmt: skip
def test_anything_else_is_an_error_that_lists_it(weights, may_differ, listed):
    with pytest.raises(WeightsError) as error:
        load_initial_weights(model(body=2, head=5, new=1), weights, may_differ)
    assert str(error.value).count("\n") == 2
    assert listed in str(error.value)


def test_with_nothing_allowed_the_same_model_is_taken_whole(weights):
    assert load_initial_weights(model(body=2, head=3, old=1), weights, []).matched == 6


@pytest.mark.parametrize(("name", "prefix", "under"), [
    ("heads.dense.weight", "heads.dense", True), ("heads.dense", "heads.dense", True),
    ("heads.dense_2.weight", "heads.dense", False), ("my.heads.dense.weight", "heads.dense", False),
])  # fmt: skip
def test_a_prefix_ends_at_a_dot(name, prefix, under):
    assert is_under(name, [prefix]) == under


def test_the_report_keeps_every_name(weights, tmp_path):
    write_report(load_initial_weights(model(body=2, head=5, new=1), weights, None), tmp_path)
    assert json.loads((tmp_path / "init_from.json").read_text())["missing"] == ["new.bias", "new.weight"]


@pytest.mark.parametrize(("init_from", "named"), [
    ("first:best", StageWeights("first", "best")), ("a.b-c:last", StageWeights("a.b-c", "last")), ("first:other", None),
    ("folder/first:best", None), ("first/checkpoints/best.pth", None), (None, None),
])  # fmt: skip
def test_a_stage_is_told_from_a_path(init_from, named):
    assert StageWeights.read(init_from) == named


def test_a_stages_checkpoint_lies_in_its_folder(tmp_path):
    best = tmp_path / "first/checkpoints/best.pth"
    best.parent.mkdir(parents=True)
    best.touch()
    assert initial_weights("first:best", tmp_path) == best
    assert initial_weights(str(best), None) == best


@pytest.mark.parametrize(("init_from", "there", "message"), [
    ("first:best", [], "there is no .*first/checkpoints/best.pth; run the stages in order .* stage=first first with"),
    ("first:best", ["last.pth"], "first never gave a value of its objective, so it has no best.pth; start from first:last"),
    ("nowhere.pth", [], "there is no file .*nowhere.pth"),
])  # fmt: skip
def test_weights_that_are_not_there_are_an_error_that_says_what_to_do(tmp_path, init_from, there, message):
    (tmp_path / "first/checkpoints").mkdir(parents=True)
    for name in there:
        (tmp_path / "first/checkpoints" / name).touch()
    with pytest.raises(ConfigError, match=message):
        initial_weights(init_from, tmp_path)


def test_a_run_that_is_no_stage_has_no_stages_beside_it():
    with pytest.raises(ConfigError, match="'first:best' names a stage, but stage=single has none; give a path"):
        initial_weights("first:best", None)
