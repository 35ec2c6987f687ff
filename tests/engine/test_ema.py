import copy

import torch
from torch import nn

from winnow.engine.ema import Ema


def trained(steps=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = Ema(model, decay=0.5)
    expected = model[0].weight.detach().clone()
    for number in range(1, steps + 1):
        with torch.no_grad():
            model[0].weight += 1
            model[1].running_mean += 1
        ema.update()
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    return model, ema, expected


def test_it_averages_parameters_with_a_rising_decay_and_follows_buffers():
    model, ema, expected = trained()
    torch.testing.assert_close(ema.weights()["0.weight"], expected)
    assert ema.weights()["1.running_mean"].equal(model[1].running_mean)


def test_the_model_holds_the_average_inside_the_context_only():
    model, ema, expected = trained()
    own = model[0].weight.detach().clone()
    with ema.applied():
        torch.testing.assert_close(model[0].weight.detach(), expected)
    assert model[0].weight.equal(own)


def test_its_state_goes_round():
    model, ema, _ = trained()
    other = Ema(copy.deepcopy(model), decay=0.5)
    other.load_state_dict(ema.state_dict())
    assert other.num_updates == 3
    assert all(value.equal(other.weights()[name]) for name, value in ema.weights().items())
