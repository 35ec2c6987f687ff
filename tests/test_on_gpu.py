"""What only a GPU can show, function by function; whole runs there are the parts of benchmarks/gpu_check.py."""

import itertools

import pytest
import torch
from composed import compose_plain
from engine_parts import Vectors
from test_modes import DETR, FCOS, INK, SIZES

from winnow.checkpoints.host_copy import HostMemory
from winnow.engine.counts import divisors
from winnow.engine.memory import memory_explained
from winnow.engine.precision import Precision
from winnow.engine.seeding import rng_state, set_rng_state
from winnow.errors import MemoryExhaustedError
from winnow.run.build import build
from winnow.run.plan import RunPlan
from winnow.tracking.null_tracker import NullTracker

GPU = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MODELS = {"fcos": FCOS, "deformable": [*DETR, "model.dropout=0.0"], "ink": [*INK, "model.mask_ratio=0.0"]}


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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_steps_change_the_weights_in_each_precision(made, model, amp):
    run = made(GPU, *MODELS[model], f"training.amp={amp}")
    before = {name: value.clone() for name, value in run.task.model.state_dict().items()}
    run.task.model.train()
    for step, batch in enumerate(itertools.islice(run.data.train_batches(1, run.sizes.final), 4)):
        run.step([batch], step)
    after = run.task.model.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in after.items())
    assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())


@pytest.mark.parametrize("model", ["fcos", "deformable"])
def test_predictions_lie_on_the_cpu(made, model):
    run = made(GPU, *MODELS[model], "training.amp=bf16")
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
