"""``model.attention``: what runs, and what is said where the kernel can't be had. test_on_gpu.py tries the kernel itself."""

import sys
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from test_deformable_detr import losses_of, tiny_task, two_image_batch
from transformers.integrations import hub_kernels
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention
from transformers.utils import import_utils

from winnow.engine.seeding import make_deterministic
from winnow.errors import ConfigError
from winnow.families.detection.models.deformable_attention import (
    KernelAttention,
    RecomputedAttention,
    trial_difference,
)

PURE = MultiScaleDeformableAttention().forward


def attentions(task):
    return [module for module in task.model.modules() if isinstance(module, MultiScaleDeformableAttention)]


@pytest.fixture
def card(monkeypatch):
    """A machine that says it has a card."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def package(monkeypatch, card):
    """The package ``kernels`` with a hub that gives no kernel; whether it was asked to stay off the network."""
    asked = []

    def kernelize(layer, *, mode, device, use_fallback):
        asked.append(constants.HF_HUB_OFFLINE)
        raise FileNotFoundError("no build for this torch\nand a long tail")

    stand_in = SimpleNamespace(kernelize=kernelize, Mode=SimpleNamespace(TRAINING="training"))
    monkeypatch.setitem(sys.modules, "kernels", stand_in)
    monkeypatch.setattr(import_utils, "is_kernels_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "register_kernel_mapping_transformers", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return asked


def problem():
    """Return the arguments of deformable attention over two levels of two images, and its floating tensors."""
    torch.manual_seed(0)
    shapes = [(6, 9), (3, 5)]
    value = torch.randn(2, sum(height * width for height, width in shapes), 4, 8, requires_grad=True)
    locations = torch.rand(2, 30, 4, 2, 3, 2, requires_grad=True)
    weights = torch.rand(2, 30, 4, 2, 3, requires_grad=True)
    arguments = (value, torch.tensor(shapes), shapes, torch.tensor([0, 54]), locations, weights, 64)
    return arguments, (value, locations, weights)


def test_sampling_a_second_time_changes_no_bit_and_keeps_no_sampled_value():
    found = []
    for forward in (PURE, RecomputedAttention().recomputed):
        arguments, leaves = problem()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, kept=kept: kept.append(one.numel()) or one, lambda one: one
        ):
            output = forward(*arguments)
        assert (6 * output.numel() in kept) is (forward is PURE)  # six places per query and channel
        gradients = torch.autograd.grad(output.square().sum(), leaves)
        found.append([output.detach(), *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def refusal(**changes):
    with pytest.raises(ConfigError) as error:
        tiny_task(attention="kernel", **changes)
    return str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a card")
def test_without_a_card_the_kernel_is_refused_and_auto_says_what_runs(caplog):
    assert refusal() == (
        "model.attention=kernel: it needs a CUDA device, and this machine has none; allowed here: auto, pure"
    )
    with caplog.at_level("INFO"):
        task = tiny_task(attention="auto")
    assert "deformable attention: pure PyTorch (grid_sample); no kernel: it needs a CUDA device" in caplog.text
    assert {type(module) for module in attentions(task)} == {RecomputedAttention}


def test_without_the_package_it_is_named_with_its_versions(card, monkeypatch):
    monkeypatch.setattr(import_utils, "is_kernels_available", lambda: False)
    least, below = import_utils.KERNELS_MIN_VERSION, import_utils.KERNELS_MAX_VERSION
    assert f"it needs the package kernels, at least {least} and below {below}: pip install" in refusal()


def test_deterministic_training_takes_no_kernel(package):
    make_deterministic(True)
    try:
        assert "adds up gradients in no fixed order, against training.deterministic=true" in refusal()
    finally:
        make_deterministic(False)


@pytest.mark.parametrize(("attention", "offline", "stays_off"), [
    ("auto", False, True), ("auto", True, True), ("kernel", False, False), ("kernel", True, True),
])  # fmt: skip
def test_only_kernel_goes_to_the_network_and_not_where_that_is_forbidden(package, attention, offline, stays_off):
    if attention == "kernel":
        where = (
            "it is not in the hub's cache, or not for this machine" if offline else "the hub gave none for this machine"
        )
        expected = (
            f"model.attention=kernel: {where} (FileNotFoundError: no build for this torch); allowed here: auto, pure"
        )
        assert refusal(offline=offline) == expected
    else:
        assert len(attentions(tiny_task(attention=attention, offline=offline))) == 3
    assert package == [stays_off]
    assert constants.HF_HUB_OFFLINE is False


def test_a_kernel_that_computes_something_else_is_refused(package, monkeypatch):
    def kernelize(layer, *, mode, device, use_fallback):
        layer.forward = lambda *args: 1.01 * PURE(*args)

    monkeypatch.setattr(sys.modules["kernels"], "kernelize", kernelize)
    difference = "winnow.families.detection.models.deformable_attention.trial_difference"
    monkeypatch.setattr(difference, lambda kernel: trial_difference(kernel, "cpu"))
    assert "its results differ from pure PyTorch's by up to 0.0" in refusal()
    monkeypatch.setattr(sys.modules["kernels"], "kernelize", lambda layer, **_: None)
    assert "transformers gave its pure PyTorch instead" in refusal()


def test_a_kernel_that_computes_the_same_is_taken_in_every_layer(package, monkeypatch, caplog):
    def kernelize(layer, *, mode, device, use_fallback):
        layer.forward = lambda *args: PURE(*args)

    monkeypatch.setattr(sys.modules["kernels"], "kernelize", kernelize)
    difference = "winnow.families.detection.models.deformable_attention.trial_difference"
    monkeypatch.setattr(difference, lambda kernel: trial_difference(kernel, "cpu"))
    with caplog.at_level("INFO"):
        task = tiny_task(attention="auto")
    assert "deformable attention: transformers' kernel, on a CPU pure PyTorch" in caplog.text
    assert [type(module) for module in attentions(task)] == [KernelAttention] * 3
    expected = losses_of(tiny_task(attention="pure"), two_image_batch())
    found = losses_of(task, two_image_batch())
    assert all(value.equal(expected[name]) for name, value in found.items()), "on a CPU, pure PyTorch bit for bit"
    with pytest.raises(ConfigError, match="model.attention=kernel, but the model is on cpu; allowed there: auto, pure"):
        losses_of(tiny_task(attention="kernel"), two_image_batch())


def test_the_trial_sees_a_wrong_output_and_a_wrong_gradient():
    def shifted_gradient(value, *others):
        return PURE(value, *others) + (value - value.detach()).sum()

    assert trial_difference(PURE, "cpu") == 0
    assert trial_difference(lambda *args: PURE(*args) * 1.01, "cpu") == pytest.approx(0.01, rel=3)
    assert trial_difference(shifted_gradient, "cpu") > 1e-3


def test_other_words_are_refused():
    with pytest.raises(ConfigError, match="model.attention='fast'"):
        tiny_task(attention="fast")
