"""Checkpoints whose checksum is right and whose content is odd: refused by entry, with the run as it was."""

import copy

import pytest
import torch
from engine_parts import VectorTask
from equality import assert_equal

from winnow.checkpoints.file import read_checkpoint
from winnow.engine.loop import fit, restore
from winnow.engine.restorable import why_no_rng_state, why_no_step
from winnow.engine.seeding import rng_state
from winnow.engine.stop import StopRequest
from winnow.errors import CheckpointError


@pytest.fixture
def saved(make_fit):
    """Return a checkpoint of a run with EMA in the middle of its second epoch, whole."""
    run = make_fit("part", ema={"decay": 0.9}, max_iter=8)
    with StopRequest() as stop:
        fit(run, stop)
    return read_checkpoint(run.checkpoints.folder / "last.pth")


def put(content, place, value):
    *nodes, last = place
    for key in nodes:
        content = content[key]
    if value is DROPPED:
        del content[last]
    else:
        content[last] = value(content[last]) if callable(value) else value


DROPPED = object()
ODD = [
    (("optimizer_state_dict", "state", 0, "step"), DROPPED, r"state\[0\]: AdamW can't go on with exp_avg, exp_avg_sq: KeyError"),
    (("optimizer_state_dict", "state", 0, "exp_avg"), DROPPED, r"state\[0\]: AdamW can't go on with step, exp_avg_sq: KeyError"),
    (("optimizer_state_dict", "state", 1, "exp_avg"), lambda t: t[:3], r"state\[1\].exp_avg: \(3,\), its parameter is \(16,\)"),
    (("optimizer_state_dict", "state", 1, "exp_avg"), "text", r"state\[1\].exp_avg: str 'text', its parameter"),
    (("optimizer_state_dict", "state", 9), {"step": torch.zeros(())}, r"state\[9\] belongs to no parameter"),
    (("optimizer_state_dict", "state", "a"), {}, "optimizer_state_dict.state.a"),
    (("optimizer_state_dict", "param_groups", 0, "params"), [0, 1], r"param_groups hold \[2\] parameters, \[4\] here"),
    (("optimizer_state_dict", "param_groups"), [], r"param_groups|parameter group of"),
    (("optimizer_state_dict",), None, "optimizer_state_dict: Input should be"),
    (("ema_state_dict", "weights", "0.weight"), lambda t: t[:, :2],
     r"weights.0.weight: float \(16, 2\) in the file, float \(16, 5\)"),
    (("ema_state_dict", "weights", "0.weight"), DROPPED, "ema_state_dict.weights.0.weight: absent in the file"),
    (("ema_state_dict", "num_updates"), -1, "ema_state_dict.num_updates: Input should be greater"),
    (("model_state_dict", "0.bias"), "text", "model_state_dict.0.bias: Input should be an instance of Tensor"),
    (("training_state_dict", "0.bias"), lambda t: t.cfloat(),
     r"training_state_dict.0.bias: complex \(16,\) in the file"),
    (("training_state_dict",), None, "training_state_dict: Input should be a valid dictionary"),
    (("training_state_dict", "0.bias"), DROPPED, "training_state_dict.0.bias: absent in the file"),
    (("progress", "step_counters", "held_back"), 9, r"held_back is 9, more than the \d steps"),
    (("progress", "step_counters", "skipped"), -1, "progress.step_counters.skipped: Input should be greater"),
    (("rng", "python"), [3, [1, 2], None], "rng is no state of random generators"),
    (("rng", "numpy"), DROPPED, "rng is no state of random generators: KeyError: 'numpy'"),
    (("rng", "torch"), lambda t: t[:5], "rng is no state of random generators: RuntimeError"),
    (("rng", "torch"), "text", "rng is no state of random generators: TypeError"),
    (("rng",), [1], "rng: Input should be a valid dictionary"),
    (("progress", "rng_ranks"), [{"python": 1}], r"progress.rng_ranks\[0\] is no state of random generators"),
    (("progress", "sample"), "3", "progress.sample: Input should be a valid integer"),
    (("progress", "sample"), True, "progress.sample: Input should be a valid integer"),
    (("progress", "sample"), 10**9, "stands at sample 1000000000 of epoch 3, but the data set has 24"),
    (("progress", "cost", "images"), "x", "progress.cost.images"),
    (("progress", "interval", "sums"), {"loss": torch.zeros(3)},
     r"progress.interval.sums.loss: float \(3,\), not float \(\)"),
    (("progress", "epoch_losses"), DROPPED, "progress.epoch_losses: Field required"),
    (("progress", "mode"), "up", "progress.mode: Input should be 'min' or 'max'"),
    (("progress", "step_counters"), {"nonfinite": 1.5}, "progress.step_counters.nonfinite"),
    (("progress", "step_counters"), {"nonfinite": 1}, "progress.step_counters.nonfinite_in_a_row: Field required"),
    (("best",), {"metric": "val/score"}, "best.value: Field required"),
    (("metrics",), {"val/score": "high"}, "metrics.val/score: Input should be a valid number"),
    (("epoch",), 10**400, "epoch: "), (("step",), -1, "step: "), (("classes",), "sum", "classes: "),
    (("metadata",), [], "metadata: "),
    (("metadata", "resumed_from"), True, "metadata.resumed_from: Input should be a valid list"),
    (("metadata", "resumed_from"), [{"path": "x"}], "metadata.resumed_from.0.epoch: Field required"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "message"), ODD)
def test_odd_content_is_refused_by_entry_before_anything_is_touched(saved, make_fit, tmp_path, place, value, message):
    put(saved, place, value)
    run = make_fit("other", ema={"decay": 0.9}, task=VectorTask())
    before = snapshot_of(run)
    with pytest.raises(CheckpointError, match=rf"odd.pth (.|\n)*{message}"):
        restore(run, saved, tmp_path / "odd.pth")
    after = snapshot_of(run)
    for one, other in zip(before, after, strict=True):
        assert_equal(one, other)


def snapshot_of(run):
    step = run.step
    return copy.deepcopy([
        dict(step.task.model.state_dict()), step.optimizer.state_dict(), step.ema.state_dict()["weights"], step.ema.num_updates,
        rng_state(), run.state.epoch, run.state.step, run.state.sample, run.state.best, step.state_dict(),
    ])  # fmt: skip


def test_whole_content_is_gone_on_from(saved, make_fit, tmp_path):
    run = make_fit("other", ema={"decay": 0.9})
    restore(run, saved, tmp_path / "last.pth")
    assert (run.state.epoch, run.state.step, run.state.sample) == (2, 8, 0)
    saved["progress"]["added_later"] = {"anything": 1}
    restore(run, saved, tmp_path / "last.pth")


OPTIMIZERS = [
    *((kind, {}) for kind in (
        "AdamW", "Adam", "SGD", "RMSprop", "Adagrad", "NAdam", "Adamax", "RAdam", "Adadelta", "Rprop", "ASGD", "Adafactor",
    )),
    ("SGD", {"momentum": 0.9}), ("AdamW", {"amsgrad": True}), ("AdamW", {"foreach": True}), ("AdamW", {"betas": (0.8, 0.9)}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_every_optimizers_own_moments_are_taken(kind, settings):
    parameter = torch.nn.Parameter(torch.rand(4, 3))
    optimizer = getattr(torch.optim, kind)([parameter], lr=0.1, **settings)
    for _ in range(2):
        parameter.grad = torch.rand(4, 3)
        optimizer.step()
    value, state = parameter.detach().clone(), copy.deepcopy(optimizer.state_dict()["state"])
    assert why_no_step(optimizer, optimizer.param_groups[0], parameter, state.get(0, {})) is None
    if kind == "AdamW":
        odd = {name: moment for name, moment in state[0].items() if name != "step"}
        assert "KeyError: 'step'" in why_no_step(optimizer, optimizer.param_groups[0], parameter, odd)
    assert torch.equal(parameter, value)
    assert_equal(state, optimizer.state_dict()["state"])


def test_random_states_are_tried_and_put_back():
    before = rng_state()
    other = copy.deepcopy(before)
    other["python"][1][3] += 1
    assert why_no_rng_state(other) is None
    assert why_no_rng_state({**before, "numpy": ["MT19937", torch.zeros(2), 0, 0, 0.0]}) is not None
    assert_equal(before, rng_state())


def test_what_a_later_version_also_wrote_is_left(saved, make_fit, tmp_path):
    saved["progress"]["cost"]["joules"] = 3.0
    if saved["best"]:
        saved["best"]["why"] = "x"
    saved["progress"]["more"] = [1]
    run = make_fit("other", ema={"decay": 0.9}, task=VectorTask())
    restore(run, saved, tmp_path / "last.pth")
    assert run.state.cost.images == saved["progress"]["cost"]["images"]
