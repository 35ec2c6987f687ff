import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from winnow.checkpoints.state_dicts import load_matching, read_state, top_modules
from winnow.errors import WeightsError


@pytest.mark.parametrize("name", ["state.safetensors", "state.pth", "checkpoint.pth"])
def test_states_are_read_from_every_kind_of_file(tmp_path, name):
    state, path = {"weight": torch.arange(3.0)}, tmp_path / name
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save({"model": state, "epoch": 3} if name.startswith("checkpoint") else state, path)
    assert torch.equal(read_state(path)["weight"], state["weight"])


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match=f"{name} cannot be read as weights"):
        read_state(tmp_path / name)


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_state(tmp_path / "list.pth")


def test_the_report_tells_matched_missing_reshaped_and_unexpected(caplog):
    caplog.set_level(logging.INFO)
    model = nn.Linear(2, 3)
    report = load_matching(model, {"weight": torch.ones(3, 2), "bias": torch.ones(5), "extra": torch.ones(1)}, "here")
    report.log()
    assert (report.matched, report.missing, report.reshaped, report.unexpected) == (1, (), ("bias",), ("extra",))
    assert model.weight.eq(1).all()
    assert "weights of here: 1 of 2 entries matched" in caplog.text
    assert "1 reshaped, start from random values: bias" in caplog.text


def test_weights_that_fill_less_than_half_belong_to_another_model():
    report = load_matching(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {"0.weight": torch.ones(2, 2)}, "there")
    with pytest.raises(WeightsError, match="only 1 of 4 entries of the model are in there"):
        report.require_match()


@pytest.mark.parametrize(("names", "expected"), [
    (["a.w", "b.w"], ["a", "b"]),
    (["net.a.w", "net.b.w", "net.b.v"], ["net.a", "net.b"]),
    (["net.a.w", "net.b.c.w"], ["net.a", "net.b"]),
    (["weight", "bias"], ["weight", "bias"]),
    (["only.weight"], ["only"]),
    ([], []),
])  # fmt: skip
def test_modules_are_split_where_there_is_more_than_one(names, expected):
    assert list(top_modules(names)) == expected
