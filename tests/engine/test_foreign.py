"""Resuming from what another program wrote: what it holds is taken over, what it lacks is listed, nothing is half done."""

import copy

import pytest
import torch
from engine_parts import VectorTask
from foreign_files import layouts, save, trained

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.layouts import read_foreign
from winnow.engine.foreign import restore_foreign
from winnow.engine.loop import fit
from winnow.engine.stop import StopRequest
from winnow.errors import CheckpointError, ConfigError


@pytest.fixture
def program():
    return trained(VectorTask(dropout=0).model, torch.linspace(-1, 1, 20).reshape(4, 5))


@pytest.fixture
def resumed(make_fit, tmp_path, caplog):
    """Return a run of 5 epochs of 6 steps that goes on from ``content``."""

    def make(content, suffix=".pth", **changes):
        run = make_fit("new", **{"max_epochs": 5, **changes})
        path = save(content, tmp_path / f"other{suffix}")
        restore_foreign(run, read_foreign(path, "a checkpoint", CheckpointError))
        return run

    return make


def weights_of(run):
    return run.task.model.state_dict()


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("name", layouts(*trained(VectorTask().model, torch.ones(4, 5))))
def test_every_layout_is_gone_on_from_and_trains(program, resumed, name, caplog):
    run = resumed(layouts(*program)[name])
    assert_same(weights_of(run), program[0].state_dict())
    known = name not in ("bare", "compiled", "both")
    assert (run.state.epoch, run.state.step) == ((2, 12) if known else (0, 0))
    assert "NOT exactly the run that was interrupted" in caplog.text
    with StopRequest() as stop:
        assert fit(run, stop) == "completed"
    assert (run.state.epoch, run.state.step) == (5, 30)


def test_safetensors_are_weights_alone(program, resumed, caplog):
    run = resumed(program[0].state_dict(), suffix=".safetensors")
    assert_same(weights_of(run), program[0].state_dict())
    for part in (
        "epoch and step (both begin at 0)",
        "optimizer (its moments begin at zero)",
        "random numbers",
        "scheduler",
    ):
        assert part in caplog.text.split("missing:")[1]


@pytest.mark.parametrize("name", ["no config", "lightning"])
def test_the_next_step_is_the_one_that_the_other_program_would_have_made(program, resumed, name):
    model, theirs = program
    run = resumed(layouts(*program)[name])
    batch = next(iter(run.data.train_batches(3, 8)))
    lr = 0.01 * run.step.schedule.factor(run.state.step)
    theirs.param_groups[0].update(lr=lr)
    theirs.zero_grad()
    (model(batch.inputs)[:, 0] - batch.truth).square().mean().backward()
    theirs.step()
    run.task.model.eval()  # their model had no dropout
    run.step([batch], run.state.step)
    for name, value in model.state_dict().items():
        assert torch.allclose(weights_of(run)[name], value, atol=1e-7), name


def test_moments_find_their_parameters_by_the_shapes_of_groups(program, resumed, caplog):
    model, _ = program
    layers = [model[0].parameters(), model[3].parameters()]
    optimizer = torch.optim.AdamW([{"params": list(part)} for part in layers])
    model(torch.ones(4, 5)).sum().backward()
    optimizer.step()
    groups = [{"name": "last", "pattern": "^3"}]
    run = resumed({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, param_groups=groups)
    assert "the optimizer's moments (4 parameters)" in caplog.text
    saved = optimizer.state[model[3].weight]["exp_avg"]
    assert run.step.optimizer.state[run.task.model[3].weight]["exp_avg"].equal(saved)


def other_kind(model):
    return torch.optim.SGD(model.parameters(), momentum=0.9, lr=0.1)


def of_a_part(model):
    return torch.optim.AdamW(model[0].parameters())


@pytest.mark.parametrize(("make", "reason"), [
    (other_kind, "optimizer: it is of another kind than AdamW"),
    (of_a_part, "optimizer: it is for 2 parameters, 4 are here"),
    (lambda model: None, "optimizer: it holds no moments"),
])  # fmt: skip
def test_moments_that_fit_nobody_are_left_and_why_is_said(program, resumed, make, reason, caplog):
    model, unused = program
    optimizer = make(model)
    if optimizer is not None:
        model(torch.ones(4, 5)).sum().backward()
        optimizer.step()
    saved = optimizer.state_dict() if optimizer is not None else {**unused.state_dict(), "state": {}}
    run = resumed({"model": model.state_dict(), "optimizer": saved, "epoch": 1})
    assert f"{reason}" in caplog.text
    assert not run.step.optimizer.state


def test_transposed_moments_of_the_right_number_are_noticed(program, resumed, caplog):
    model, optimizer = program
    saved = optimizer.state_dict()
    saved["state"][0], saved["state"][2] = saved["state"][2], saved["state"][0]
    resumed({"model": model.state_dict(), "optimizer": saved})
    assert "exp_avg of 0.weight has shape (1, 16), the parameter (16, 5)" in caplog.text


def test_the_average_goes_on_or_begins_here(program, resumed, caplog):
    model, _ = program
    average = {name: value * 2 for name, value in model.state_dict().items()}
    run = resumed({"model": model.state_dict(), "ema": {"module": average}}, ema={"decay": 0.9})
    assert_same(run.step.ema.weights(), average)
    run = resumed({"model": model.state_dict()}, ema={"decay": 0.9})
    assert_same(run.step.ema.weights(), model.state_dict())
    assert "averaged weights (the EMA begins at these weights)" in caplog.text


def test_random_numbers_of_torch_are_taken_over(program, resumed):
    state = torch.Generator().manual_seed(5).get_state()
    resumed({"model": program[0].state_dict(), "rng_state": state})
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("changed", ["missing", "shape", "more"])
def test_weights_of_another_model_are_refused_with_their_differences_and_touch_nothing(
    program, make_fit, tmp_path, changed
):
    state = dict(program[0].state_dict())
    last = state.pop("3.weight")
    state |= {"shape": {"3.weight": torch.ones(1, 9)}, "more": {"3.weight": last, "4.weight": last}}.get(changed, {})
    run = make_fit("new")
    before = {name: value.clone() for name, value in weights_of(run).items()}
    path = save({"model": state, "epoch": 1}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match="holds the weights of another model, 1 differences; to start from what fits use"
    ):
        restore_foreign(run, read_foreign(path, "a checkpoint", CheckpointError))
    assert_same(weights_of(run), before)


def test_a_file_that_stands_behind_the_end_is_refused(program, resumed):
    with pytest.raises(
        ConfigError, match=r"stands at epoch 7, step 42, and training.max_epochs=5.*leave nothing to do"
    ):
        resumed({"model": program[0].state_dict(), "epoch": 7})


def test_what_the_run_saves_is_a_checkpoint_of_its_own_that_remembers_where_it_came_from(program, resumed):
    run = resumed(layouts(*program)["no config"])
    with StopRequest() as stop:
        fit(run, stop)
    saved = read_checkpoint(run.checkpoints.last)
    (origin,) = saved["metadata"]["resumed_from"]
    assert (origin["epoch"], origin["step"]) == (2, 12)
    assert origin["path"].endswith("other.pth")


def test_a_checkpoint_of_ours_that_was_saved_again_lacks_only_its_exactness(make_fit, resumed, tmp_path):
    first = make_fit("first", max_epochs=2, ema={"decay": 0.9})
    with StopRequest() as stop:
        fit(first, stop)
    content = read_checkpoint(first.checkpoints.last)
    del content["rng"], content["scaler_state_dict"], content["config"]
    run = resumed(content, ema={"decay": 0.9})
    assert_same(weights_of(run), weights_of(first))
    assert_same(run.step.ema.weights(), first.step.ema.weights())
    assert (run.state.epoch, run.state.step) == (2, 12)
    moments = first.step.optimizer.state[first.task.model[0].weight]["exp_avg"]
    assert run.step.optimizer.state[run.task.model[0].weight]["exp_avg"].equal(moments)


@pytest.mark.parametrize(("odd", "reason"), [
    (lambda saved: saved["state"].update({1: [3]}), "laid out as no optimizer"),
    (lambda saved: saved["param_groups"][0].update(params=[[0], 1, 2, 3]), "laid out as no optimizer"),
    (lambda saved: saved["param_groups"][0].update(tensors=[["a"], "b", "c", "d"]), "laid out as no optimizer"),
    (lambda saved: saved.update(param_groups=[]), "laid out as no optimizer"),
    (lambda saved: saved["state"][3].update(exp_avg=torch.tensor(0.5)), "AdamW can't go on with step, exp_avg"),
    (lambda saved: saved["state"][2].pop("step"), "AdamW can't go on with exp_avg"),
])  # fmt: skip
def test_odd_moments_are_left_whichever_parameter_they_are_of(program, resumed, odd, reason, caplog):
    model, optimizer = program
    saved = copy.deepcopy(optimizer.state_dict())
    odd(saved)
    run = resumed({"model": model.state_dict(), "optimizer": saved, "epoch": 1})
    assert reason in caplog.text
    assert not run.step.optimizer.state
    run.step([next(iter(run.data.train_batches(3, 8)))], run.state.step)
