import logging

import pytest
import torch
from engine_parts import VectorTask
from torch import nn

from winnow.engine.gradients import FirstLook, Gradients, joint_norm, judge, judge_modules, read_gradients
from winnow.engine.loop import fit
from winnow.engine.stop import StopRequest
from winnow.errors import UntrainedError


class SpareTask(VectorTask):
    """``spare`` is a layer beside the model that predicts; ``weight`` of None leaves it out of the loss."""

    def __init__(self, weight=None):
        super().__init__()
        self.model = nn.Sequential(self.model, nn.Linear(1, 1))
        self.weight = weight

    def forward(self, batch):
        return self.model[0](batch.inputs)[:, 0]

    def losses(self, outputs, batch, count):
        terms = super().losses(outputs, batch, count)
        if self.weight is None:
            return terms
        return terms | {"loss_spare": self.weight * self.model[1](outputs[:, None]).sum()}


class NothingToLearn(VectorTask):
    """Its first ``steps`` batches count for nothing and reach no parameter."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.seen = steps, 0

    def loss_count(self, batch):
        self.seen += 1
        return {"vectors": 0.0} if self.seen <= self.steps else super().loss_count(batch)

    def losses(self, outputs, batch, count):
        terms = super().losses(outputs, batch, count)
        return terms if self.seen > self.steps else {name: term * 0 for name, term in terms.items()}


SPARE = [{"name": "spare", "pattern": r"^1\."}]


def with_look(run, required=True):
    run.step.first_look = FirstLook(run.task.model, required)
    return run


def test_the_norms_are_those_of_the_gradients_by_group(make_fit):
    run = make_fit(param_groups=[{"name": "last", "pattern": r"^3\."}])
    batch = next(run.data.train_batches(1, 8))
    sum(run.task.losses(run.task.forward(batch), batch, {"vectors": 1.0}).values()).backward()
    found = read_gradients(run.task.model, run.step.optimizer)
    assert set(found.groups["last"]) == {"3.weight", "3.bias"}
    expected = torch.cat([parameter.grad.flatten() for parameter in run.task.model[3].parameters()]).norm()
    assert joint_norm(found.groups["last"]) == pytest.approx(float(expected))
    assert found.frozen == {}


def test_a_group_that_the_loss_does_not_reach_ends_a_new_run_in_its_first_step(make_fit):
    run = with_look(make_fit(task=SpareTask(), param_groups=SPARE))
    with pytest.raises(
        UntrainedError, match=r"parameter group 'spare' gets no gradient.*1.weight, 1.bias.*require_grad"
    ):
        fit(run, StopRequest())
    assert run.state.step == 0


def test_it_is_a_warning_where_no_gradient_is_required_and_in_a_resumed_run(make_fit, caplog):
    fit(with_look(make_fit("allowed", task=SpareTask(), param_groups=SPARE), required=False), StopRequest())
    resumed = with_look(make_fit("resumed", task=SpareTask(), param_groups=SPARE))
    resumed.state.step = 6
    assert fit(resumed, StopRequest()) == "completed"
    assert caplog.text.count("parameter group 'spare' gets no gradient") == 2


def test_gradients_of_exactly_0_are_a_warning_in_the_first_step_and_an_error_after_several(make_fit, caplog):
    run = with_look(make_fit(task=SpareTask(weight=0.0), param_groups=SPARE))
    assert fit(run, StopRequest()) == "completed"
    assert "parameter group 'spare' gets gradients of exactly 0: 1.weight, 1.bias" in caplog.text
    zero = Gradients({"spare": {"1.weight": 0.0, "1.bias": None}}, {})
    assert judge(zero, zero_is_none=True).errors
    assert not judge(zero, zero_is_none=False).errors


def test_single_parameters_without_gradient_are_named_in_a_warning(make_fit, caplog):
    assert fit(with_look(make_fit(task=SpareTask())), StopRequest()) == "completed"
    assert "2 of 6 parameters of group 'default' get no gradient and stay as they are: 1.weight, 1.bias" in caplog.text


def test_a_step_with_nothing_to_learn_from_proves_nothing(make_fit, caplog):
    caplog.set_level(logging.INFO)
    assert fit(with_look(make_fit(task=NothingToLearn(3))), StopRequest()) == "completed"
    assert "gradient norms of step 4: default" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_infinite_gradients_of_fp16s_first_steps_are_no_error(make_fit, caplog):
    task = VectorTask()
    with torch.no_grad():
        task.model[0].weight *= 1e4
    assert fit(with_look(make_fit(task=task, amp="fp16", max_nonfinite=50)), StopRequest()) == "completed"
    assert not [record for record in caplog.records if "gradient" in record.message and record.levelno > logging.INFO]


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "clip_grad_norm": 0.1}, {"amp": "fp16"}], ids=str)
def test_looking_changes_no_bit_of_the_training(make_fit, changes):
    plain = make_fit("plain", **changes)
    fit(plain, StopRequest())
    watched = with_look(make_fit("watched", **changes))
    fit(watched, StopRequest())
    assert watched.step.first_look is None
    for one, other in zip(plain.task.model.parameters(), watched.task.model.parameters(), strict=True):
        assert one.equal(other)
    assert plain.tracker.values("train/loss") == watched.tracker.values("train/loss")


def test_a_frozen_parameter_with_a_gradient_is_an_error(make_fit):
    task = VectorTask()
    task.model[0].requires_grad_(False)
    run = with_look(make_fit(task=task))
    task.model[0].requires_grad_(True)  # after the optimizer was built
    with pytest.raises(UntrainedError, match=r"2 frozen parameters got a gradient: 0.weight, 0.bias"):
        fit(run, StopRequest())


def test_a_later_steps_number_stands_for_an_earlier_none():
    first, second = ({"default": {"a": None, "b": 2.0}}, {"default": {"a": 1.0, "b": 0.5}})
    merged = Gradients(first, {}).merged(Gradients(second, {"c": 3.0}))
    assert (merged.groups, merged.frozen) == ({"default": {"a": 1.0, "b": 2.0}}, {"c": 3.0})


@pytest.mark.parametrize(("norms", "said"), [
    ({"default": {"net.body.w": 1.0, "net.aux.w": None, "net.aux.b": 0.0}}, ["module 'net.aux' gets no gradient"]),
    ({"default": {"body.w": 1.0, "body.b": None}}, []),
    ({"default": {"body.w": 1.0}, "aux": {"aux.w": None}}, []),  # a group of its own: judge says so
])  # fmt: skip
def test_a_module_that_nothing_reaches_is_named(norms, said):
    found = judge_modules(Gradients(norms, {}))
    assert [text[: len(start)] for text, start in zip(found, said, strict=True)] == said
