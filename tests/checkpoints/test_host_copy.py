import os

import pytest
import torch
from torch import nn

from winnow.checkpoints.host_copy import HostMemory


@pytest.fixture
def memory():
    return HostMemory()


@pytest.mark.parametrize("tensor", [
    torch.tensor(3.0), torch.tensor(7), torch.empty(0), torch.empty(2, 0, 3), torch.arange(12.0).reshape(3, 4).T,
    torch.arange(10)[3:7], torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.randn(5).bfloat16(),
    torch.tensor([True, False]), torch.tensor([1.0]).expand(4), torch.eye(3).to_sparse(), torch.tensor([1 + 2j]).conj(),
])  # fmt: skip
def test_every_tensor_keeps_its_values_type_and_strides(memory, tensor):
    copied = memory.copy({"a": tensor}).content["a"]
    assert copied.dtype == tensor.dtype
    assert copied.layout is tensor.layout
    torch.testing.assert_close(copied, tensor, rtol=0, atol=0)
    if tensor.layout is torch.strided and not tensor.is_conj():
        assert copied.stride() == tensor.stride()


def test_what_training_changes_afterwards_is_not_seen(memory):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    content = {"model": model.state_dict(), "groups": [{"lr": 0.1}], "rng": (1, [2, 3])}
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    copied = memory.copy(content).content
    with torch.no_grad():
        for value in model.state_dict().values():
            value.fill_(9)
    content["groups"][0]["lr"] = 0.2
    content["rng"][1].append(4)
    assert all(torch.equal(copied["model"][name], value) for name, value in expected.items())
    assert (copied["groups"], copied["rng"]) == ([{"lr": 0.1}], (1, [2, 3]))


def test_a_models_state_keeps_its_order_and_versions(memory):
    state = nn.BatchNorm1d(4).state_dict()
    copied = memory.copy({"model": state}).content["model"]
    assert type(copied) is type(state)
    assert list(copied) == list(state)
    assert copied._metadata == state._metadata


def test_tensors_that_share_a_storage_still_do(memory):
    whole = torch.arange(10.0)
    copied = memory.copy({"whole": whole, "again": whole, "part": whole[2:5], "other": torch.arange(10.0)}).content
    assert copied["part"].equal(whole[2:5])
    copied["whole"][2] = -1
    assert copied["again"][2] == copied["part"][0] == -1
    assert copied["other"][2] == 2


def test_weights_of_inference_mode_are_copied_to_ordinary_ones(memory):
    with torch.inference_mode():
        weights = torch.ones(3)
    copied = memory.copy({"a": weights}).content["a"]
    assert not copied.is_inference()
    assert copied.equal(torch.ones(3))


def address(taken, name="a"):
    return taken.content[name].data_ptr()


def test_the_next_copy_fills_the_same_memory_unless_it_was_given_away(memory):
    content = {"a": torch.ones(100_000)}
    first = memory.copy(content)
    assert address(memory.copy(content)) == address(first)
    memory.give_away(first)
    second = memory.copy({"a": torch.zeros(100_000)})
    assert address(second) != address(first)
    assert first.content["a"].equal(content["a"])


def test_a_state_that_has_grown_gets_more_memory(memory):
    memory.copy({"a": torch.ones(10)})
    large = torch.rand(1_000_000)
    assert memory.copy({"a": large}).content["a"].equal(large)


def test_room_made_beforehand_is_what_the_copy_uses(memory):
    content = {"a": torch.rand(100_000)}
    memory.room_for(content)()
    taken = memory.copy(content)
    assert taken.content["a"].equal(content["a"])
    assert address(memory.copy(content)) == address(taken)


def test_a_forked_worker_keeps_none_of_the_memory(memory):
    taken = memory.copy({"a": torch.ones(100_000)})
    worker = os.fork()
    if worker == 0:
        os._exit(int(taken.content["a"][0]) != 0)
    assert os.waitpid(worker, 0)[1] == 0
    assert taken.content["a"][0] == 1


def test_what_holds_still_is_copied_once(memory):
    still, moving = nn.Parameter(torch.zeros(3)), torch.zeros(3)
    content = {"still": still, "moving": moving}
    memory.hold_still([still])
    memory.room_for(content)()
    first = memory.copy(content).content
    still.data.add_(1)  # unseen by its version: a second copy would show it
    moving.add_(1)
    second = memory.copy(content).content
    assert second["still"].tolist() == [0, 0, 0]
    assert second["still"].data_ptr() == first["still"].data_ptr() != still.data_ptr()
    assert second["moving"].tolist() == [1, 1, 1]


def test_what_was_said_to_hold_still_and_changes_is_copied_again(memory):
    target = nn.Parameter(torch.zeros(3), requires_grad=False)  # as of a momentum encoder
    memory.hold_still([target])
    assert memory.copy({"target": target}).content["target"].tolist() == [0, 0, 0]
    target.add_(1)
    assert memory.copy({"target": target}).content["target"].tolist() == [1, 1, 1]


def test_a_part_of_a_larger_tensor_does_not_hold_still_alone(memory):
    whole = torch.zeros(4)
    memory.hold_still([whole[:2]])
    memory.copy({"whole": whole})
    whole.add_(1)
    assert memory.copy({"whole": whole}).content["whole"].tolist() == [1, 1, 1, 1]
