import pytest
import torch
from torch import nn

from winnow.checkpoints.state_dicts import frozen_parameters
from winnow.engine.frozen import changing_tensors, frozen_checksum, require_same_frozen
from winnow.errors import WeightsError


def model(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    parts = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).to(dtype)
    parts[0].requires_grad_(False)
    return parts


def test_what_changes_is_what_trains_and_the_buffers():
    parts = model()
    assert frozen_parameters(parts).keys() == {"0.weight", "0.bias"}
    own = [value.data_ptr() for name, value in parts.state_dict().items() if not name.startswith("0.")]
    assert [tensor.data_ptr() for tensor in changing_tensors(parts)] == own


def test_the_checksum_is_of_the_frozen_weights_alone():
    one, other = model(), model()
    nn.init.zeros_(other[2].weight)
    assert frozen_checksum(one).equal(frozen_checksum(other))
    other[0].weight[1, 1] += 1e-6
    assert not frozen_checksum(one).equal(frozen_checksum(other))
    assert frozen_checksum(model(dtype=torch.bfloat16)).numel() == 32
    channels_last = nn.Conv2d(2, 2, 3).requires_grad_(False)
    before = frozen_checksum(channels_last)
    assert before.equal(frozen_checksum(channels_last.to(memory_format=torch.channels_last)))


def test_ranks_with_other_frozen_weights_are_told_so():
    require_same_frozen(frozen_checksum(model()), frozen_checksum(model()), 1)
    with pytest.raises(WeightsError, match="the frozen weights of rank 3 differ from rank 0's"):
        require_same_frozen(frozen_checksum(model(seed=1)), frozen_checksum(model()), 3)
