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


def half_frozen():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    return model


def test_frozen_weights_are_neither_copied_nor_averaged():
    model = half_frozen()
    ema = Ema(model, decay=0.5)
    ema.update()
    assert ema.weights().keys() == model.state_dict().keys()
    assert ema.weights()["0.weight"].data_ptr() == model[0].weight.data_ptr()
    assert ema.weights()["2.weight"].data_ptr() != model[2].weight.data_ptr()
    assert len(ema.own_weights()) == len(model.state_dict()) - 2
    versions = [parameter._version for parameter in model[0].parameters()]
    with ema.applied():
        pass
    assert [parameter._version for parameter in model[0].parameters()] == versions


def test_an_average_that_frozen_weights_once_had_goes_on():
    model = half_frozen()
    ema = Ema(model, decay=0.5)
    state = {"num_updates": 3, "weights": {name: value + 1 for name, value in model.state_dict().items()}}
    ema.load_state_dict(state)
    assert ema.weights()["0.weight"].equal(model[0].weight + 1)
    ema.update()
    torch.testing.assert_close(ema.weights()["0.weight"], model[0].weight + 5 / 14)
