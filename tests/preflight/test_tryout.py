"""What a preflight foretells is held against what the loop then does."""

import mmap
import sys
import time

import pytest
import torch
from engine_parts import VectorData

from winnow.engine.loop import fit
from winnow.engine.stop import StopRequest
from winnow.preflight.checks import _judge_losses
from winnow.preflight.estimate import epochs_ahead, estimate
from winnow.preflight.peak_memory import PeakMemory
from winnow.preflight.report import StageReport
from winnow.preflight.tryout import take_first_steps, time_evaluation, time_steps

SCHEDULE = [[1, 8], [3, 16]]


def done(run):
    """Return (epoch, size, number of batches) of each epoch, and the evaluations, as the data was asked for them."""
    asked = run.data.requested
    epochs = {}
    for epoch, _, size in asked:
        if epoch != "val":
            epochs[epoch, size] = epochs.get((epoch, size), 0) + 1
    return [(*key, count) for key, count in epochs.items()], sum(epoch == "val" for epoch, *_ in asked)


@pytest.mark.parametrize("changes", [
    {}, {"max_epochs": 4, "resize_schedule": SCHEDULE}, {"eval_interval": 2}, {"max_iter": 8},
], ids=str)  # fmt: skip
def test_the_epochs_foretold_are_those_that_the_loop_makes(make_fit, changes):
    run = make_fit(**changes)
    ahead = epochs_ahead(run)
    fit(run, StopRequest())
    epochs, evaluations = done(run)
    assert [(epoch.epoch, epoch.image_size, epoch.num_steps) for epoch in ahead] == epochs
    assert sum(epoch.is_evaluated for epoch in ahead) == evaluations


def test_of_a_run_in_mid_epoch_the_rest_is_foretold(make_fit):
    run = make_fit(max_epochs=3)
    run.state.epoch, run.state.step, run.state.sample = 1, 8, 8
    assert [epoch.num_steps for epoch in epochs_ahead(run)] == [4, 6]


def test_the_estimate_adds_up(make_fit):
    ahead = epochs_ahead(make_fit(max_epochs=4, resize_schedule=SCHEDULE, eval_interval=2))
    total = estimate(ahead, {8: 1.0, 16: 3.0}, start_seconds=0.5, evaluation_seconds=10.0, steps_per_epoch=6)
    assert [(size.image_size, size.num_epochs, size.epoch_seconds) for size in total.sizes] == [
        (8, 2, 6.5),
        (16, 2, 18.5),
    ]
    assert total.seconds == 2 * 6.5 + 2 * 18.5 + 2 * 10
    assert (total.num_steps, total.num_evaluations) == (24, 2)


@pytest.mark.parametrize(("num_broken", "num_steps", "messages"), [(3, 4, 0), (99, 8, 1)])
def test_fp16_steps_that_are_all_skipped_are_told_of(make_fit, num_broken, num_steps, messages):
    run = make_fit(amp="fp16")
    broken = iter(range(num_broken))

    def losses(outputs, *args, original=run.task.losses):
        if next(broken, None) is not None:
            outputs.register_hook(lambda gradient: gradient * torch.nan)
        return original(outputs, *args)

    run.task.losses = losses
    first, report = take_first_steps(run), StageReport("single", "run")
    assert (first.num_steps, first.num_skipped) == (num_steps, min(num_broken, num_steps))
    _judge_losses(first, report)
    assert [finding.check for finding in report.warnings] == ["steps"] * messages


def test_steps_of_one_batch_per_epoch_can_be_timed(make_fit):
    run = make_fit(data=VectorData(num_samples=4))
    timing = time_steps(run, 8, seconds=0.0)
    assert timing.num_steps == 2
    assert timing.images_per_second == pytest.approx(4 / timing.seconds_per_step)
    assert timing.largest == (4, 8, 8)


def test_the_first_steps_give_losses_and_gradients(make_fit):
    first = take_first_steps(make_fit(accumulate=2))
    assert set(first.terms) == {"loss_square"}
    assert all(norm > 0 for norm in first.gradients.norms.values())
    assert (first.num_steps, first.num_nonfinite, len(first.batches)) == (3, 0, 2)


def test_a_poisoned_loss_is_counted(make_fit):
    first = take_first_steps(make_fit(data=VectorData(poison_step=0), max_nonfinite=50))
    assert (first.terms, first.num_nonfinite) == (None, first.num_steps)


def test_an_evaluation_is_timed_whole_where_there_is_time(make_fit):
    timing = time_evaluation(make_fit(), seconds=5)
    assert (timing.num_batches, timing.of_batches) == (1, 1)
    assert timing.seconds > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a process's peak")
def test_peak_memory_is_of_the_time_since_its_restart():
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    before, size = memory.read(), 200_000_000
    with mmap.mmap(-1, size) as held:  # fresh pages, not what the allocator has kept
        held.write(b"1" * size)
    high = memory.read()
    assert high - before > 0.9 * size
    memory.restart()
    assert high - memory.read() > 0.9 * size


def test_an_evaluation_of_the_raw_weights_too_takes_twice_as_long(make_fit):
    class Slow(VectorData):
        def val_batches(self, image_size):
            time.sleep(0.1)
            return super().val_batches(image_size)

    assert time_evaluation(make_fit(data=Slow(), ema={"decay": 0.9, "also_raw": True}), seconds=5).seconds > 0.2
