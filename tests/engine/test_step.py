"""One update: what reaches the optimizer, and what goes between ranks."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from engine_parts import VectorData, Vectors, VectorTask, training_settings
from torch import nn

from winnow.engine.precision import Precision
from winnow.engine.schedule import LrSchedule
from winnow.engine.step import TrainStep
from winnow.testing.ranks import ThreadRanks, run_as_ranks


def norms_at_update(run):
    """Note the norm of all gradients whenever the optimizer of ``run`` steps."""
    norms = []

    def note(*unused):
        gradients = [parameter.grad for group in run.step.optimizer.param_groups for parameter in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    run.step.optimizer.register_step_pre_hook(note)
    return norms


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_gradients_are_clipped_at_their_own_size_whatever_they_were_scaled_by(make_fit, amp):
    free, clipped = (make_fit(task=VectorTask(dropout=0), amp=amp, clip_grad_norm=norm) for norm in (None, 0.125))
    clipped.task.model.load_state_dict(free.task.model.state_dict())
    batch = next(free.data.train_batches(1, 8))
    own = free.task.losses(free.task.forward(batch), batch, {"vectors": 4.0})["loss_square"]
    whole = torch.nn.utils.get_total_norm(torch.autograd.grad(own, list(free.task.model.parameters())))
    for run, expected in ((free, pytest.approx(float(whole), rel=0.05)), (clipped, pytest.approx(0.125, rel=0.01))):
        if amp == "fp16":
            run.step.scaler.load_state_dict({**run.step.scaler.state_dict(), "scale": 256.0})
        norms = norms_at_update(run)
        run.step([batch], 0)
        assert norms == [expected]


@dataclass(frozen=True)
class Travelling(Vectors):
    """Notes where it is taken to; what stays on the host is of no use."""

    taken: list = field(default_factory=list)

    def to(self, device, memory_format=torch.preserve_format):
        self.taken.append((device, memory_format))
        return Vectors(self.inputs, self.truth, self.image_ids, self.side)


def test_batches_are_taken_to_the_device_in_the_memory_format_that_was_chosen(make_fit):
    run = make_fit()
    batch = next(run.data.train_batches(1, 8))
    travelling = Travelling(batch.inputs, batch.truth, batch.image_ids, batch.side)
    used = []
    run.task.forward = lambda batch: used.append(type(batch)) or VectorTask.forward(run.task, batch)
    run.step([travelling], 0)
    assert travelling.taken == [(torch.device("cpu"), run.step.precision.memory_format)]
    assert used == [Vectors]


def test_a_batch_without_samples_never_reaches_the_model(make_fit):
    whole, padded = make_fit(task=VectorTask(dropout=0)), make_fit(task=VectorTask(dropout=0))
    padded.task.model.load_state_dict(whole.task.model.state_dict())
    batch = next(whole.data.train_batches(1, 8))
    empty = Vectors(batch.inputs[:0], batch.truth[:0], [], 8)
    sizes = []
    padded.task.forward = lambda batch: sizes.append(batch.num_samples) or VectorTask.forward(padded.task, batch)
    assert padded.step([batch, empty], 0) == whole.step([batch], 0)
    assert sizes == [4]
    for name, value in whole.task.model.state_dict().items():
        assert torch.equal(value, padded.task.model.state_dict()[name])


def test_an_infinite_loss_lowers_the_scale_of_fp16(make_fit):
    run = make_fit(amp="fp16")
    batch = next(run.data.train_batches(1, 8))
    scale = run.step.scaler.get_scale()
    assert run.step([Vectors(batch.inputs * torch.inf, batch.truth, batch.image_ids, 8)], 0) is None
    assert run.step.scaler.get_scale() == scale / 2


def test_its_counts_go_round(make_fit):
    step = make_fit().step
    counts = {"nonfinite": 4, "nonfinite_in_a_row": 3, "skipped": 2, "held_back": 1}
    step.load_state_dict(counts)
    assert step.state_dict() == counts
    assert step.counters() == {"train/nonfinite_steps": 4.0, "perf/skipped_steps": 2.0}


def test_gradients_are_gone_after_the_step(make_fit):
    run = make_fit()
    run.step([next(run.data.train_batches(1, 8))], 0)
    assert all(parameter.grad is None for parameter in run.task.model.parameters())


def test_an_infinite_norm_of_finite_gradients_leaves_the_weights_alone(make_fit):
    run = make_fit()
    batch = next(run.data.train_batches(1, 8))
    before = {name: value.clone() for name, value in run.task.model.state_dict().items()}
    run.task.losses = lambda outputs, batch, count: {"loss": outputs.sum() * 3e38 * (outputs.detach() * 0 + 1).sum()}
    assert run.step([batch], 0) is None
    assert all(torch.equal(value, before[name]) for name, value in run.task.model.state_dict().items())
    assert run.step.counters() == {"train/nonfinite_steps": 1.0}


class CountsOnce(nn.Module):
    """Changes a buffer in its first forward pass only."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 1)
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, inputs):
        if self.passes == 0:
            self.passes += 1
        return self.linear(inputs)


def test_buffers_go_to_the_other_ranks_after_the_steps_that_change_them_only(monkeypatch):
    shared = []
    share = ThreadRanks.share_tensors
    monkeypatch.setattr(ThreadRanks, "share_tensors", lambda ranks, own: (shared.append(ranks.rank), share(ranks, own)))

    def train(ranks):
        task, data = VectorTask(), VectorData()
        task.model = CountsOnce()
        optimizer = torch.optim.SGD(
            [{"params": list(task.model.parameters()), "lr": 0.1, "base_lr": 0.1, "name": "all"}]
        )
        schedule = LrSchedule(training_settings().scheduler, 100, 100)
        step = TrainStep(task, optimizer, schedule, Precision.choose("off", torch.device("cpu")), None, None, 3, ranks)
        counts = []
        for number, batch in enumerate(data.train_batches(1, 8)):
            step([batch], number)
            if ranks.is_main:
                counts.append(len(shared))
        return counts

    counts = run_as_ranks(2, train)[0]
    assert counts[0] == 0
    assert shared.count(0) == shared.count(1) == 1
    assert math.isclose(counts[-1], 2)
