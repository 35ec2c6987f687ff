"""Every fast way to compute resumes exactly: fused AdamW in channels_last memory, bfloat16, compiled."""

import signal

import pytest
import torch
from composed import compose_plain
from equality import assert_equal

from winnow.checkpoints.file import read_checkpoint
from winnow.engine.loop import fit, restore
from winnow.engine.stop import StopRequest
from winnow.run.build import build
from winnow.run.plan import RunPlan
from winnow.tracking.null_tracker import NullTracker

SIZES = [
    "data.num_train=22", "data.num_val=6", "training.batch_size=4",
    "training.num_workers=0", "training.max_epochs=2", "training.ema.decay=0.9", "training.scheduler.warmup_steps=0",
    "tracking=off", "training.device=cpu",
]  # fmt: skip
DIGITS = ["data.size=64", "data.image_size=64"]
FCOS = [*DIGITS, "model.channels=[8,8,16,16]", "model.head_channels=32"]
DETR = [*DIGITS, "model=deformable_detr_tiny", "model.num_queries=5", "model.d_model=32", "model.dropout=0.1"]
INK = [
    "model=inktrace", "data=ink_strokes", "model.channels=[8,8,8]", "model.depths=[1,1,1]", "model.embed_dim=16",
    "model.num_layers=1", "model.num_heads=2", "model.mask_ratio=0.6", "data.image_size=32",
]  # fmt: skip
IN_EPOCH_2 = 10
"""Losses are computed in 6 training and 2 validation batches per epoch."""


@pytest.fixture
def made(tmp_path):
    def make(name, *overrides):
        torch.compiler.reset()  # as in a new process
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        config = compose_plain(f"data.root={tmp_path}/digits", *SIZES, *overrides)
        return build(RunPlan.of(config, folder, {}, None, None), NullTracker(folder))

    return make


def fitted(run):
    with StopRequest() as stop:
        return fit(run, stop)


def stop_at(run, number):
    losses, calls = run.task.losses, []

    def interrupting(*arguments):
        calls.append(1)
        if len(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        return losses(*arguments)

    run.task.losses = interrupting


def everything(run):
    checkpoint = run.snapshot.take(run.state)
    kept = ("model_state_dict", "optimizer_state_dict", "ema_state_dict", "scaler_state_dict", "metrics", "best")
    return {key: checkpoint[key] for key in kept}


@pytest.mark.timeout(1800)  # the compiler shares its cores with other tests
@pytest.mark.parametrize("mode", [
    pytest.param([*FCOS], id="default"),
    pytest.param([*FCOS, "training.amp=bf16"], id="bf16"),
    pytest.param([*DETR], id="deformable"),
    pytest.param([*DETR, "training.amp=bf16"], id="deformable_bf16"),
    pytest.param([*INK], id="ink"),
    pytest.param([*FCOS, "training.compile=true"], id="compiled", marks=pytest.mark.slow),
    pytest.param([*INK, "training.compile=true"], id="ink_compiled", marks=pytest.mark.slow),
    pytest.param([*FCOS, "training.compile=true", "training.amp=bf16"], id="compiled_bf16", marks=pytest.mark.slow),
])  # fmt: skip
def test_each_mode_resumes_in_mid_epoch_bit_by_bit(made, mode):
    whole = made("whole", *mode)
    assert whole.step.optimizer.param_groups[0]["fused"]
    fitted(whole)
    part = made("part", *mode)  # building seeds
    stop_at(part, IN_EPOCH_2)
    assert fitted(part) == "interrupted"
    resumed = made("part", *mode)
    restore(resumed, read_checkpoint(part.checkpoints.last), part.checkpoints.last)
    assert resumed.state.sample > 0
    fitted(resumed)
    assert_equal(everything(whole), everything(resumed))


@pytest.mark.slow
def test_checkpoints_of_compiled_and_other_runs_are_interchangeable(made):
    compiled, plain = made("compiled", *FCOS, "training.compile=true"), made("plain", *FCOS)
    stop_at(compiled, 3)
    fitted(compiled)
    restore(plain, read_checkpoint(compiled.checkpoints.last), compiled.checkpoints.last)
    assert list(compiled.task.model.state_dict()) == list(plain.task.model.state_dict())
    assert fitted(plain) == "completed"
