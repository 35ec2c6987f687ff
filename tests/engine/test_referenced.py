"""Frozen weights by reference: a ResNet's layers from a file, and what its checkpoints hold instead of them."""

import hashlib

import pytest
import torch
from engine_parts import VectorTask
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock

from winnow.checkpoints import references
from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.initial import load_initial_weights
from winnow.checkpoints.layouts import read_foreign, read_tensors, with_frozen_weights
from winnow.checkpoints.state_dicts import load_pretrained, read_state
from winnow.compare.comparison import compare
from winnow.compare.subject import read_subject
from winnow.engine.loop import fit, restore
from winnow.engine.stop import StopRequest
from winnow.errors import CheckpointError, WeightsError

REFERENCED = {"frozen_weights": "referenced", "ema": {"decay": 0.9}}


class ResnetTask(VectorTask):
    """Two blocks of a ResNet, frozen and taken from a file, between layers that train."""

    def __init__(self, weights=None, dtype=torch.float32):
        torch.manual_seed(0)
        self.model = nn.ModuleDict({
            "stem": nn.Linear(5, 16), "body": nn.Sequential(BasicBlock(16, 16), BasicBlock(16, 16)), "head": nn.Linear(16, 1),
        })  # fmt: skip
        if weights is not None:
            load_pretrained(self.model["body"], read_state(weights), str(weights))
        self.model["body"].to(dtype).requires_grad_(False)

    def forward(self, batch):
        pixels = self.model["stem"](batch.inputs)[:, :, None, None]
        pixels = self.model["body"](pixels.to(next(self.model["body"].parameters()).dtype))
        return self.model["head"](pixels.flatten(1).float())[:, 0]


@pytest.fixture(params=["safetensors", "pth"])
def weights(request, tmp_path):
    """Return a file as torchvision's are: tensors by name."""
    torch.manual_seed(7)
    state = nn.Sequential(BasicBlock(16, 16), BasicBlock(16, 16)).state_dict()
    path = tmp_path / f"resnet.{request.param}"
    save_file(state, path) if request.param == "safetensors" else torch.save(state, path)
    return path


@pytest.fixture
def made(make_fit, weights):
    def make(folder, dtype=torch.float32, **changes):
        return make_fit(folder, task=ResnetTask(weights, dtype), **{**REFERENCED, **changes})

    return make


class StopAt:
    def __init__(self, run, step):
        self.run, self.step = run, step

    @property
    def requested(self):
        return self.run.state.step >= self.step


def run_fit(run):
    with StopRequest() as stop:
        return fit(run, stop)


def frozen_bytes(run):
    return sum(value.numel() * value.element_size() for value in run.task.model["body"].parameters())


def whole(path, frozen_source=None):
    return with_frozen_weights(read_checkpoint(path), path, frozen_source)


def assert_same_state(first, second):
    for key in ("model_state_dict", "training_state_dict"):
        assert list(first[key]) == list(second[key])
        assert all(value.equal(second[key][name]) for name, value in first[key].items())


def test_a_checkpoint_shrinks_by_the_bytes_of_the_frozen_layers(made):
    sizes = {}
    for kind in ("stored", "referenced"):
        run = made(kind, max_epochs=1, frozen_weights=kind)
        run_fit(run)
        sizes[kind] = run.checkpoints.last.stat().st_size
    # Each tensor's name and its 64 bytes of alignment come on top; the references take less.
    assert 0 <= sizes["stored"] - sizes["referenced"] - frozen_bytes(run) < 0.2 * frozen_bytes(run)
    assert_same_state(
        whole(run.checkpoints.folder.parents[1] / "stored/checkpoints/last.pth"), whole(run.checkpoints.last)
    )


def test_it_says_source_checksum_name_and_dtype(made, weights):
    run = made("run", max_epochs=1, dtype=torch.bfloat16)
    run_fit(run)
    saved = read_checkpoint(run.checkpoints.last)
    recorded = saved["frozen_references"]
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert recorded["sources"] == [{"source": str(weights), "file": str(weights), "sha256": digest}]
    assert recorded["tensors"]["body.1.conv2.weight"] == {"source": 0, "name": "1.conv2.weight", "dtype": "bfloat16"}
    assert recorded["tensors"].keys() == {f"body.{name}" for name, _ in run.task.model["body"].named_parameters()}
    kept = (
        {name for name in saved[key] if name.startswith("body")} for key in ("model_state_dict", "training_state_dict")
    )
    assert all(names == {f"body.{name}" for name, _ in run.task.model["body"].named_buffers()} for names in kept)
    assert saved["version"] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("goes_on", ["referenced", "stored"])
def test_a_resume_is_exact_and_references_again(made, dtype, goes_on):
    uninterrupted = made("whole", dtype=dtype)
    run_fit(uninterrupted)
    part = made("part", dtype=dtype)
    assert fit(part, StopAt(part, 8)) == "interrupted"
    resumed = made("part", dtype=dtype, frozen_weights=goes_on)
    restore(resumed, read_checkpoint(part.checkpoints.last), part.checkpoints.last)
    assert run_fit(resumed) == "completed"
    assert_same_state(whole(uninterrupted.checkpoints.last), whole(resumed.checkpoints.last))
    assert resumed.state.metrics == uninterrupted.state.metrics
    assert ("frozen_references" in read_checkpoint(resumed.checkpoints.last)) == (goes_on == "referenced")


def test_a_resume_takes_the_weights_from_the_file_and_not_from_how_the_model_was_built(made, make_fit):
    part = made("part")
    fit(part, StopAt(part, 8))
    resumed = make_fit(
        "part", task=ResnetTask(), **REFERENCED
    )  # as after training.init_from, which a resume does not read again
    restore(resumed, read_checkpoint(part.checkpoints.last), part.checkpoints.last)
    body, expected = resumed.task.model["body"].state_dict(), part.task.model["body"].state_dict()
    assert all(value.equal(expected[name]) for name, value in body.items())
    run_fit(resumed)
    assert "body.0.conv1.weight" in read_checkpoint(resumed.checkpoints.last)["frozen_references"]["tensors"]


def test_a_file_that_changed_is_refused_by_name(made, weights):
    run = made("run", max_epochs=1)
    run_fit(run)
    saved = read_checkpoint(run.checkpoints.last)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        WeightsError, match=rf"last.pth takes its frozen weights from {weights}, which has changed since"
    ):
        restore(run, saved, run.checkpoints.last)


def test_a_file_that_is_missing_is_refused_by_name_and_may_have_moved(made, weights, tmp_path):
    run = made("run", max_epochs=1)
    run_fit(run)
    expected = whole(run.checkpoints.last)
    (tmp_path / "elsewhere").mkdir()
    moved = weights.rename(tmp_path / "elsewhere" / weights.name)
    with pytest.raises(WeightsError, match=rf"{weights}, which is missing .*; training.frozen_source=PATH names"):
        whole(run.checkpoints.last)
    for frozen_source in (moved, moved.parent):
        assert_same_state(whole(run.checkpoints.last, str(frozen_source)), expected)
    with pytest.raises(WeightsError, match="which has changed since"):
        whole(run.checkpoints.last, str(run.checkpoints.best))


def test_weights_to_start_from_and_a_comparison_fill_them_in(made, weights):
    run = made("run", max_epochs=1)
    run_fit(run)
    other = ResnetTask()
    report = load_initial_weights(other.model, run.checkpoints.last, may_differ=())
    assert not report.random_names
    body = run.task.model["body"]
    assert all(
        value.equal(dict(body.named_parameters())[name]) for name, value in other.model["body"].named_parameters()
    )
    comparison = compare([read_subject(str(path)) for path in (run.checkpoints.last, run.checkpoints.best)])
    (frozen,) = (row for row in comparison.weights if row.name == "body")
    assert frozen.num_parameters == sum(value.numel() for value in body.parameters())
    assert [(change.relative, change.num_left_out) for change in frozen.changes] == [(0.0, 0)]
    assert read_tensors(run.checkpoints.last).keys() == run.task.model.state_dict().keys()
    assert "frozen_references" not in read_foreign(run.checkpoints.last, "a checkpoint", CheckpointError).unread


def test_what_comes_from_a_checkpoint_of_winnows_is_stored(made, make_fit):
    first = made("first", max_epochs=1)
    run_fit(first)
    task = ResnetTask()
    second = make_fit("second", task=task, max_epochs=1, **REFERENCED)
    load_initial_weights(task.model, first.checkpoints.last)
    run_fit(second)
    assert "frozen_references" not in read_checkpoint(second.checkpoints.last)


def test_what_starts_from_another_programs_file_is_referenced_by_init_from(make_fit, tmp_path):
    torch.manual_seed(3)
    path = tmp_path / "all.pth"
    torch.save({"model": {f"net.{name}": value for name, value in ResnetTask().model.state_dict().items()}}, path)
    task = ResnetTask()
    run = make_fit(task=task, max_epochs=1, **REFERENCED)
    load_initial_weights(task.model, path)
    run_fit(run)
    tensors = read_checkpoint(run.checkpoints.last)["frozen_references"]["tensors"]
    assert tensors["body.0.conv1.weight"]["name"] == "net.body.0.conv1.weight"
    assert whole(run.checkpoints.last)["model_state_dict"]["body.0.conv1.weight"].equal(
        task.model["body"][0].conv1.weight
    )


@pytest.mark.parametrize(
    "change", ["values", "transposed", "inside the run folder", "trains", "changed while training"]
)
def test_what_is_not_as_in_a_file_outside_is_stored(make_fit, weights, tmp_path, change):
    if change == "inside the run folder":
        (tmp_path / "run").mkdir()
        weights = weights.rename(tmp_path / "run" / weights.name)
    task = ResnetTask(weights)
    weight = task.model["body"][0].conv1.weight
    with torch.no_grad():
        if change == "values":
            weight[0, 0, 0, 0] += 1
        elif change == "transposed":
            weight.copy_(weight.clone().transpose(0, 1))
        elif change == "trains":
            weight.requires_grad_(True)
    run = make_fit("run", task=task, max_epochs=1, **REFERENCED)
    if change == "changed while training":
        run.snapshot.take(run.state)
        with torch.no_grad():
            weight += 1
    run_fit(run)
    saved = read_checkpoint(run.checkpoints.last)
    assert saved["training_state_dict"]["body.0.conv1.weight"].equal(weight)
    assert ("frozen_references" in saved) == (change != "inside the run folder")
    assert whole(run.checkpoints.last)["training_state_dict"].keys() == task.model.state_dict().keys()


def test_a_source_is_hashed_once_per_process(made):
    before = references._sha256.cache_info().misses
    run = made("run")
    run_fit(run)
    whole(run.checkpoints.last)
    assert references._sha256.cache_info().misses == before + 1


@pytest.mark.parametrize("wrong", [
    [], {"sources": [{}]}, {"sources": [], "tensors": {"a": {"source": 3, "name": "a", "dtype": "float32"}}, "names": []},
    {"sources": [], "tensors": {}, "names": ["nowhere"]},
])  # fmt: skip
def test_references_that_are_none_end_in_one_message(tmp_path, wrong):
    torch.save({"model_state_dict": {"a": torch.zeros(1)}, "frozen_references": wrong}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="odd.pth: its frozen_references are not as winnow writes them"):
        read_tensors(tmp_path / "odd.pth")
