"""What only a GPU can show, function by function; whole runs there are the parts of benchmarks/gpu_check.py."""

import itertools
import warnings
from dataclasses import replace

import pytest
import torch
from composed import compose_plain
from detection_parts import batch as detection_batch
from detection_parts import target
from engine_parts import Vectors
from test_modes import DETR, FCOS, INK, SIZES
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from winnow.checkpoints.host_copy import HostMemory
from winnow.engine.counts import divisors
from winnow.engine.memory import memory_explained
from winnow.engine.precision import Precision
from winnow.engine.seeding import make_deterministic, rng_state, set_rng_state
from winnow.engine.transfer import Transfer, with_next
from winnow.errors import ConfigError, MemoryExhaustedError
from winnow.families.detection.models.deformable_attention import NoKernelError, RecomputedAttention, load_kernel
from winnow.run.build import build
from winnow.run.plan import RunPlan
from winnow.tracking.null_tracker import NullTracker

GPU = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MODELS = {"fcos": FCOS, "deformable": [*DETR, "model.dropout=0.0"], "ink": [*INK, "model.mask_ratio=0.0"]}
PAIRS = [
    "model=pair_faster_rcnn_tiny", "data=pairs_synthetic", "data.image_size=64", "model.channels=[8,8,16,16]",
    "model.pyramid_channels=16", "model.head_channels=16", "model.anchor_sizes=[8,12,20]",
]  # fmt: skip
STEPPED = MODELS | {"pairs": PAIRS}


@pytest.fixture
def made(tmp_path):
    def make(device, *overrides):
        fixed = [f"data.root={tmp_path}/data", f"training.device={device}", "training.ema.decay=null"]
        config = compose_plain(*SIZES, *overrides, *fixed)
        return build(RunPlan.of(config, tmp_path, {}, None, None), NullTracker(tmp_path))

    return make


@pytest.fixture
def exact(monkeypatch):
    """Have convolutions computed in full float32, as on a CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def losses(run, batch):
    count = divisors(run.task.loss_count(batch))
    batch = batch.to(run.device, run.step.precision.memory_format)
    return run.task.losses(run.task.forward(batch), batch, count)


@pytest.mark.parametrize("model", MODELS)
def test_losses_and_gradients_are_a_cpus(made, exact, model):
    run = made("cpu", *MODELS[model], "training.amp=off")
    twin = made(GPU, *MODELS[model], "training.amp=off")
    twin.task.model.load_state_dict(run.task.model.state_dict())
    batch = next(run.data.train_batches(1, run.sizes.final))
    expected, found = losses(run, batch), losses(twin, batch)
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        assert found[name].item() == pytest.approx(loss.item(), rel=1e-3), name
    norms = []
    for one, terms in ((run, expected), (twin, found)):
        torch.stack(list(terms.values())).sum().backward()
        gradients = [parameter.grad for parameter in one.task.model.parameters() if parameter.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)


@pytest.mark.parametrize("model", STEPPED)
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_steps_change_the_weights_in_each_precision(made, model, amp):
    run = made(GPU, *STEPPED[model], f"training.amp={amp}")
    before = {name: value.clone() for name, value in run.task.model.state_dict().items()}
    run.task.model.train()
    for step, batch in enumerate(itertools.islice(run.data.train_batches(1, run.sizes.final), 4)):
        run.step([batch], step)
    after = run.task.model.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in after.items())
    assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())


@pytest.mark.parametrize("model", ["fcos", "deformable", "pairs"])
def test_predictions_lie_on_the_cpu(made, model):
    run = made(GPU, *STEPPED[model], "training.amp=bf16")
    run.task.model.eval()
    host = next(run.data.val_batches(run.sizes.final))
    batch = host.to(run.device, run.step.precision.memory_format)
    with torch.inference_mode(), run.step.precision.autocast():
        found = run.task.predictions(run.task.forward(batch), batch)
    assert len(found) == host.num_samples
    assert {part.device.type for image in found for part in (image.boxes, image.scores, image.labels)} == {"cpu"}


def test_a_copy_for_a_checkpoint_does_not_see_the_next_update():
    weights = torch.randn(2**22, device=GPU)
    expected = weights.cpu()
    copied = HostMemory().copy({"weights": weights})
    weights.fill_(0)  # queued behind the copy
    copied.wait()
    assert torch.equal(copied.content["weights"], expected)


def test_deformable_attention_samples_again_instead_of_keeping():
    shapes = [(64, 64), (32, 32)]
    torch.manual_seed(0)
    leaves = [torch.rand(size, device=GPU, requires_grad=True)
              for size in ((1, 5120, 8, 32), (1, 5120, 8, 2, 4, 2), (1, 5120, 8, 2, 4))]  # fmt: skip
    value, locations, weights = leaves
    arguments = (
        value,
        torch.tensor(shapes, device=GPU),
        shapes,
        torch.tensor([0, 4096], device=GPU),
        locations,
        weights,
        64,
    )
    outputs, gradients, held = [], [], []
    for attention in (MultiScaleDeformableAttention(), RecomputedAttention()):
        before = torch.cuda.memory_allocated()
        output = attention(*arguments)
        held.append(torch.cuda.memory_allocated() - before)
        outputs.append(output.detach())
        gradients.append(torch.autograd.grad(output.square().sum(), leaves))
        del output
    assert torch.equal(*outputs)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert held[1] < held[0] / 5


def test_auto_is_a_half_precision_with_a_scaler_for_fp16_alone():
    precision = Precision.choose("auto", torch.device(GPU))
    assert precision.dtype in (torch.bfloat16, torch.float16)
    assert precision.new_scaler().is_enabled() == (precision.dtype is torch.float16)


def test_out_of_memory_names_the_batch():
    batch = Vectors(torch.zeros(3, 5), torch.zeros(3), [1, 2, 3], side=5)
    precision = Precision(torch.device(GPU), torch.bfloat16)
    with (
        pytest.raises(MemoryExhaustedError, match="3 images of 5×5 pixels in bfloat16.*halve training.batch_size"),
        memory_explained([batch], precision, "step 1"),
    ):
        torch.empty(2**50, device=GPU)


def test_random_numbers_of_the_device_go_on_from_a_saved_state():
    state = rng_state()
    drawn = torch.rand(5, device=GPU)
    set_rng_state(state)
    assert torch.equal(torch.rand(5, device=GPU), drawn)


@pytest.mark.parametrize(("amp", "tolerance"), [("off", 1e-3), ("bf16", 3e-2)])
def test_the_kernel_computes_attention_as_pure_pytorch_does(made, exact, amp, tolerance):
    try:
        load_kernel(cached_only=True)
    except NoKernelError as error:
        pytest.skip(str(error))
    runs = [
        made(GPU, *MODELS["deformable"], f"training.amp={amp}", f"model.attention={choice}")
        for choice in ("pure", "kernel")
    ]
    runs[1].task.model.load_state_dict(runs[0].task.model.state_dict())
    batch = next(runs[0].data.train_batches(1, runs[0].sizes.final))
    terms, norms = [], []
    for run in runs:
        with run.step.precision.autocast():
            terms.append(losses(run, batch))
        torch.stack(list(terms[-1].values())).sum().backward()
        norms.append(
            torch.nn.utils.get_total_norm([p.grad for p in run.task.model.parameters() if p.grad is not None]).item()
        )
    for name, loss in terms[0].items():
        assert terms[1][name].item() == pytest.approx(loss.item(), rel=tolerance, abs=tolerance), name
    assert norms[1] == pytest.approx(norms[0], rel=10 * tolerance)


def test_auto_takes_the_kernel_where_it_is_there_and_says_so(made, caplog):
    try:
        load_kernel(cached_only=True)
        expected = "deformable attention: transformers' kernel"
    except NoKernelError as error:
        expected = f"deformable attention: pure PyTorch (grid_sample); no kernel: {error}"
    with caplog.at_level("INFO"):
        made(GPU, *MODELS["deformable"], "model.attention=auto")
    assert expected in caplog.text


def test_no_encoder_layer_makes_the_host_wait(made):
    run = made(GPU, *MODELS["deformable"], "training.amp=off", "model.attention=pure")
    run.task.model.train()
    layers = run.task.model.model.encoder.layers
    watched = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: watched.append(layer))
        layer.register_forward_pre_hook(lambda *_: torch.cuda.set_sync_debug_mode("error"))
        layer.register_forward_hook(lambda *_: torch.cuda.set_sync_debug_mode("default"))
    batch = next(run.data.train_batches(1, run.sizes.final)).to(run.device, run.step.precision.memory_format)
    try:
        run.task.forward(batch)  # raises where an operation inside of a layer waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watched == list(layers)


def test_predictions_of_fcos_make_the_host_wait_twice_and_once_per_image(made):
    run = made(GPU, *MODELS["fcos"], "training.amp=off", "evaluation.score_threshold=0.0")
    run.task.model.eval()
    batch = next(run.data.val_batches(run.sizes.final)).to(run.device, run.step.precision.memory_format)
    with torch.inference_mode():
        outputs = run.task.forward(batch)
        run.task.predictions(outputs, batch)  # the first call of a kernel may wait to be loaded
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run.task.predictions(outputs, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(warning.message) for warning in caught) <= 2 + batch.num_samples


def test_batches_that_travel_ahead_arrive_whole_and_stay_so():
    transfer = Transfer(Precision(torch.device(GPU), None))
    side = 512
    hosts = [
        replace(
            detection_batch(target([], [], (side, side))),
            images=torch.full((8, 3, side, side), number, dtype=torch.uint8),
        ).pin_memory()
        for number in range(24)
    ]
    heavy = torch.randn(4096, 4096, device=GPU)
    wrong = torch.zeros((), device=GPU, dtype=torch.int64)
    for number, (host, following) in enumerate(with_next(hosts, transfer.is_ahead)):
        moved = transfer(host)
        transfer.start(following)
        for _ in range(4):  # the device is behind: what is read below is read when the next copies have long begun
            heavy = (heavy @ heavy).clamp(-1, 1)
        wrong += (moved.images != number).sum()
        del moved
    assert wrong.item() == 0


def test_deterministic_training_names_what_has_no_such_kernel(made):
    try:
        run = made(GPU, *MODELS["deformable"], "training.deterministic=true")
        before = {name: value.clone() for name, value in run.task.model.state_dict().items()}
        run.task.model.train()
        with pytest.raises(ConfigError, match=r"grid_sampler_2d_backward_cuda.*training\.device=cpu"):
            run.step([next(run.data.train_batches(1, run.sizes.final))], 0)
    finally:
        make_deterministic(False)
    assert all(torch.equal(before[name], value) for name, value in run.task.model.state_dict().items())
