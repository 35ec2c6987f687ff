import contextlib
import itertools
import math
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_parts import MeanError, VectorData, Vectors, VectorTask, training_settings

from winnow.checkpoints.file import read_checkpoint
from winnow.engine.evaluate import evaluate
from winnow.engine.gradients import FirstLook
from winnow.engine.loop import fit, fit_epochs, restore, speed
from winnow.engine.step import TrainStep
from winnow.engine.stop import StopRequest
from winnow.errors import CheckpointError, DataError, DivergedError, TransientDataError
from winnow.testing.ranks import run_as_ranks

RECORDED = Path(__file__).parent / "recorded"


class NeverTwice:
    """A trial that is pruned at its second report."""

    def __init__(self):
        self.reports, self.costs = [], []

    def report(self, value, epoch):
        self.reports.append((epoch, value))

    def spend(self, cost):
        self.costs.append(cost)

    def should_prune(self):
        return len(self.reports) == 2


def run_fit(run):
    with StopRequest() as stop:
        return fit(run, stop)


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("not so within a minute")


def weights(run):
    return {name: value.clone() for name, value in run.task.model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns(make_fit):
    run = make_fit(max_epochs=20, optimizer={"_target_": "torch.optim.AdamW", "lr": 0.03})
    assert run_fit(run) == "completed"
    scores = [value for _, value in run.tracker.values("val/score")]
    assert len(scores) == 20
    assert scores[-1] > 1.5 * scores[0]


def test_it_is_evaluated_after_each_interval_of_epochs_and_at_the_end(make_fit):
    run = make_fit(max_epochs=5, eval_interval=2)
    assert run_fit(run) == "completed"
    assert [step for step, _ in run.tracker.values("val/score")] == [12, 24, 30]


def test_speed_is_images_over_time_and_the_part_of_it_that_data_was_waited_for():
    cpu = torch.device("cpu")
    assert speed(8, 2.0, 0.5, cpu) == {"perf/images_per_second": 4.0, "perf/data_wait_fraction": 0.25}
    assert speed(8, 0.0, 1e-9, cpu) == pytest.approx({"perf/images_per_second": 8e9, "perf/data_wait_fraction": 1.0})


def test_the_line_of_an_epoch_shows_the_losses_the_headlines_and_the_objective(make_fit, caplog):
    with caplog.at_level("INFO"):
        run_fit(make_fit(max_epochs=1, objective="train/loss", mode="min"))
    (line,) = [message for message in caplog.messages if message.startswith("epoch ")]
    names = re.findall(r"([a-z/_]+) +\d+\.\d{4}", line)
    assert names == ["loss", "val/loss", "val/score", "train/loss"]


def test_max_iter_ends_the_run_at_that_step_with_an_evaluation(make_fit):
    run = make_fit(max_epochs=10, max_iter=8)
    run_fit(run)
    assert run.state.step == 8
    assert [step for step, _ in run.tracker.values("val/score")] == [6, 8]


def test_accumulated_steps_equal_the_steps_of_the_larger_batch(make_fit):

    small = make_fit(data=VectorData(batch_size=2), task=VectorTask(dropout=0), accumulate=3)
    large = make_fit(data=VectorData(batch_size=6), task=VectorTask(dropout=0))
    large.task.model.load_state_dict(small.task.model.state_dict())
    run_fit(small), run_fit(large)
    for name, value in weights(large).items():
        torch.testing.assert_close(weights(small)[name], value)


def test_training_follows_the_resize_schedule_and_evaluation_its_last_size(make_fit):
    run = make_fit(resize_schedule=[[1, 8], [3, 16]])
    run_fit(run)
    assert {size for epoch, _, size in run.data.requested if epoch in (1, 2)} == {8}
    assert {size for epoch, _, size in run.data.requested if epoch in (3, "val")} == {16}


def test_early_stopping_ends_after_patience_evaluations_without_gain(make_fit):
    run = make_fit(max_epochs=50, early_stopping={"patience": 2, "min_delta": 1.0})
    assert run_fit(run) == "early_stopped"
    assert run.state.epoch == 3
    scores = [value for _, value in run.tracker.values("val/score")]
    assert scores[2] == max(scores)  # min_delta is not for what is best
    assert read_checkpoint(run.checkpoints.best)["epoch"] == 3


def test_a_pruned_trial_stops_after_its_report(make_fit):
    run = make_fit(max_epochs=10)
    trial = NeverTwice()
    assert run_fit(replace(run, trial=trial)) == "pruned"
    assert [epoch for epoch, _ in trial.reports] == [1, 2]
    assert [cost["images"] for cost in trial.costs] == [run.data.num_train_samples * epoch for epoch in (1, 2)]


def test_a_trial_is_not_pruned_in_its_last_epoch(make_fit):
    run = make_fit(max_epochs=2)
    trial = NeverTwice()
    assert run_fit(replace(run, trial=trial)) == "completed"
    assert [epoch for epoch, _ in trial.reports] == [1, 2]


def test_a_resumed_run_reports_its_epoch_again_for_it_may_have_been_killed_before_its_report(make_fit):
    first = make_fit()
    stop_after(first, 10)
    assert run_fit(first) == "interrupted"
    resumed = make_fit()
    restore(resumed, read_checkpoint(first.checkpoints.last), first.checkpoints.last)
    trial = NeverTwice()
    run_fit(replace(resumed, trial=trial))
    assert [epoch for epoch, _ in trial.reports] == [1, 2]
    assert trial.reports[0][1] == first.tracker.values("val/score")[0][1]
    (note,) = read_checkpoint(resumed.checkpoints.last)["metadata"]["resumed_from"]
    assert (note["epoch"], note["step"]) == (first.state.epoch, first.state.step)
    fresh = NeverTwice()
    run_fit(replace(make_fit("fresh"), trial=fresh))
    assert [epoch for epoch, _ in fresh.reports] == [1, 2]


class SlowData(VectorData):
    def train_batches(self, *arguments, **named):
        for batch in super().train_batches(*arguments, **named):
            time.sleep(0.1)
            yield batch


def test_speed_and_the_share_of_waiting_for_data_are_tracked(make_fit):
    run = make_fit(data=SlowData(), max_epochs=1, accumulate=2)
    began = time.perf_counter()
    run_fit(run)
    seconds = time.perf_counter() - began
    ((step, waited),) = run.tracker.values("perf/data_wait_fraction")
    ((_, rate),) = run.tracker.values("perf/images_per_second")
    assert step == 3
    assert 0.6 / seconds < waited < 1
    assert 24 / seconds < rate < 24 / 0.6
    assert 0.6 < run.state.cost.seconds < seconds


class Watched:
    """A progress that keeps what it is told."""

    def __init__(self):
        self.tasks = []

    @contextlib.contextmanager
    def task(self, name, total, done=0):
        told = []
        self.tasks.append((name, total, done, told))
        yield lambda samples, loss=None: told.append((samples, loss))


def test_progress_advances_by_each_batch_and_begins_where_the_run_stands(make_fit):
    part, watched = make_fit(accumulate=2, max_epochs=1, log_interval=2), Watched()
    stop_after(part, 1)
    run_fit(replace(part, progress=watched))
    resumed = make_fit(accumulate=2, max_epochs=1, log_interval=2)
    restore(resumed, read_checkpoint(part.checkpoints.last), part.checkpoints.last)
    run_fit(replace(resumed, progress=watched))
    first, second, evaluation = watched.tasks
    assert [task[:3] for task in watched.tasks] == [("epoch 1", 6, 0), ("epoch 1", 6, 2), ("evaluate", 1, 0)]
    loss = resumed.tracker.values("train/loss")[0][1]
    assert first[3] == [(4, None)] * 2
    assert second[3] == [(4, loss)] * 2 + [(4, None)] * 2
    assert evaluation[3] == [(8, None)]


def test_what_was_logged_is_on_disk_before_a_checkpoint_that_says_so(make_fit):
    run = make_fit(max_epochs=2, save_every_steps=4)
    flushed = []
    run.tracker.flush = lambda: flushed.append(run.checkpoints.last.exists()) or True
    run_fit(run)
    assert len(flushed) == 4, "two epochs, and the steps 4 and 8"
    assert not flushed[0]


def test_a_stop_while_data_is_away_saves_and_interrupts(make_fit):
    def is_over():
        signal.raise_signal(signal.SIGTERM)
        return False

    class Leaving(VectorData):
        def train_batches(self, epoch, *arguments, **named):
            if epoch == 2:
                raise TransientDataError("the folder is gone", is_over, 60.0)
            yield from super().train_batches(epoch, *arguments, **named)

    run = make_fit(data=Leaving())
    assert run_fit(run) == "interrupted"
    assert read_checkpoint(run.checkpoints.last)["epoch"] == 1


class Drifting(VectorTask):
    """Its buffer follows the rank while it trains, and is noted when it predicts."""

    def __init__(self, rank):
        super().__init__(dropout=0)
        self.rank, self.seen = rank, []
        self.model.register_buffer("drift", torch.zeros(1))

    def forward(self, batch):
        if self.model.training:
            self.model.drift += self.rank + 1
        return super().forward(batch)

    def predictions(self, outputs, batch):
        self.seen.append(float(self.model.drift))
        return super().predictions(outputs, batch)


class Shared(VectorData):
    """Every other batch, as one of two ranks reads them."""

    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def num_train_batches(self, start_sample=0):
        return super().num_train_batches(start_sample) // 2

    def train_batches(self, *arguments, **named):
        return itertools.islice(super().train_batches(*arguments, **named), self.rank, None, 2)


def test_a_run_that_loses_its_data_for_good_saves_where_it_stands(make_fit):
    class Losing(VectorData):
        def train_batches(self, epoch, *arguments, **named):
            batches = super().train_batches(epoch, *arguments, **named)
            yield from itertools.islice(batches, 2) if epoch == 2 else batches
            if epoch == 2:
                raise DataError("the share is gone")

    run = make_fit(data=Losing())
    with pytest.raises(DataError, match="the share is gone"):
        run_fit(run)
    last = read_checkpoint(run.checkpoints.last)
    assert (last["epoch"], last["step"], last["progress"]["sample"]) == (1, 8, 8)


def test_a_model_that_was_evaluated_before_is_trained_in_training_mode(make_fit):
    run = make_fit(max_epochs=1)
    run.task.model.eval()
    modes = []
    run.task.model[2].register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    run_fit(run)
    assert modes == [True] * 6 + [False]


def test_all_ranks_evaluate_the_running_statistics_of_the_first(make_fit):
    def train(ranks):
        run = make_fit(f"rank_{ranks.rank}", Shared(ranks.rank), Drifting(ranks.rank), max_epochs=2)
        own = run.step
        step = TrainStep(run.task, own.optimizer, own.schedule, own.precision, None, None, 3, ranks)
        run = replace(run, step=step)
        with run.checkpoints:
            assert fit_epochs(run, SimpleNamespace(requested=False), lambda: None) == "completed"
        return run.task.seen

    assert run_as_ranks(2, train) == [[3.0, 6.0]] * 2


def test_an_objective_that_no_evaluation_gives_is_never_best(make_fit):
    run = make_fit(objective="val/map_small")
    assert run_fit(run) == "completed"
    assert run.state.best is None
    assert not run.checkpoints.best.exists()


def test_nonfinite_losses_leave_the_weights_alone_and_end_in_diverged(make_fit):

    run = make_fit(data=VectorData(poison_step=2), max_epochs=5, max_nonfinite=4)
    with pytest.raises(DivergedError, match=r"4 steps in a row, the last one step 10 .*loss_square nan.*image ids \["):
        run_fit(run)
    assert all(value.isfinite().all() for value in weights(run).values())
    assert_same(weights(run), read_checkpoint(run.checkpoints.last)["model_state_dict"])


def test_one_nonfinite_batch_is_skipped_and_counted(make_fit):
    run = make_fit(max_nonfinite=3)
    batches = run.data.train_batches(1, 8)
    good, bad = next(batches), next(batches)
    run.step([bad.__class__(bad.inputs * torch.inf, bad.truth, bad.image_ids, 1)], 0)
    before = weights(run)
    assert run.step([good], 1) is not None
    assert (run.step.nonfinite, run.step.nonfinite_in_a_row) == (1, 0)
    assert any(not torch.equal(value, before[name]) for name, value in weights(run).items())


def with_broken_gradients(run, is_broken):
    """Make the gradient NaN, though the loss is finite, in those of the run's steps (from 0) of which ``is_broken``."""
    steps = itertools.count()

    def losses(outputs, batch, count, original=run.task.losses):
        if run.task.model.training and is_broken(next(steps)):
            outputs.register_hook(lambda gradient: gradient * math.nan)
        return original(outputs, batch, count)

    run.task.losses = losses
    return run


def test_fp16_with_nan_gradients_ends_in_diverged_at_the_lowest_scale(make_fit):
    run = with_broken_gradients(
        make_fit(amp="fp16", ema={"decay": 0.9}, max_epochs=50, max_nonfinite=4, scheduler={"name": "cosine"}),
        lambda step: True,
    )
    before = weights(run)
    with pytest.raises(
        DivergedError, match=r"not finite in 4 steps in a row, the last one step 20 .*gradient norm nan"
    ):
        run_fit(run)
    assert_same(weights(run), before)
    assert run.step.scaler.get_scale() == 1  # 2 ** 16 is halved 16 times
    assert (run.step.skipped, run.step.nonfinite, run.step.ema.num_updates) == (20, 4, 0)
    assert run.tracker.values("perf/skipped_steps")[-1] == (18, 18)


class UnnoticedSkips(torch.amp.GradScaler):
    """torch's own scaler, of which the step hears nothing."""

    has_skipped = was_least = False


def test_fp16_of_a_healthy_run_that_skips_its_first_steps_does_not_change(make_fit):
    run = with_broken_gradients(make_fit("run", amp="fp16"), {0, 1, 2, 9}.__contains__)
    assert run_fit(run) == "completed"
    plain = with_broken_gradients(make_fit("plain", amp="fp16"), {0, 1, 2, 9}.__contains__)
    plain.step.scaler = UnnoticedSkips("cpu")
    assert run_fit(plain) == "completed"
    assert (run.step.skipped, run.step.nonfinite, run.step.nonfinite_in_a_row) == (4, 0, 0)
    assert run.step.scaler.get_scale() == 2**12
    assert_same(weights(run), weights(plain))
    assert run.tracker.values("train/loss") == plain.tracker.values("train/loss")


def test_fp16_steps_that_are_skipped_at_the_lowest_scale_leave_average_and_schedule_where_they_were(make_fit):
    run = make_fit(amp="fp16", ema={"decay": 0.9}, max_epochs=2, max_nonfinite=4, log_interval=1)
    run.step.scaler.load_state_dict({**run.step.scaler.state_dict(), "scale": 2.0})
    run_fit(with_broken_gradients(run, lambda step: step in (4, 5, 6)))
    assert (run.step.skipped, run.step.nonfinite, run.step.ema.num_updates) == (3, 2, 9)
    plain = make_fit("plain", max_epochs=2, log_interval=1)
    run_fit(plain)
    rates, plain_rates = ([rate for _, rate in part.tracker.values("lr/default")] for part in (run, plain))
    assert rates == [plain_rates[step] for step in (0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9)]


def test_a_scale_that_fell_to_nothing_before_there_was_a_lowest_one_goes_on_from_that(make_fit):
    run = make_fit(amp="fp16")
    run.step.scaler.load_state_dict({**run.step.scaler.state_dict(), "scale": 0.0})
    run.step.load_state_dict({"nonfinite": 1, "nonfinite_in_a_row": 0})  # as it was recorded then
    assert run_fit(run) == "completed"
    assert run.step.scaler.get_scale() == 1
    assert (run.step.skipped, run.step.nonfinite) == (0, 1)


@pytest.mark.parametrize("changes", [
    {}, {"accumulate": 4, "max_epochs": 8}, {"ema": {"decay": 0.9, "also_raw": True}}, {"amp": "bf16"}, {"amp": "fp16"},
    {"clip_grad_norm": 0.1}, {"resize_schedule": [[1, 8], [2, 16]]},
    {"early_stopping": {"patience": 2, "min_delta": 0.05}, "max_epochs": 6},
])  # fmt: skip
@pytest.mark.parametrize("stop_at", [3, 6, 8, 13])
def test_stopped_and_resumed_equals_uninterrupted_bit_by_bit(make_fit, changes, stop_at):
    whole = make_fit("whole", **changes)
    status = run_fit(whole)
    part = make_fit("part", **changes)
    stop_after(part, stop_at)
    assert run_fit(part) == "interrupted"
    resumed = make_fit("part", **changes)
    torch.rand(17)  # a resumed process has drawn other numbers before
    restore(resumed, read_checkpoint(part.checkpoints.last), part.checkpoints.last)
    assert run_fit(resumed) == status
    assert_same(weights(whole), weights(resumed))
    assert whole.state.metrics == resumed.state.metrics
    assert whole.state.best == resumed.state.best
    assert lasting(whole.tracker.metrics) == lasting(part.tracker.metrics) + lasting(resumed.tracker.metrics)
    if whole.step.ema is not None:
        assert_same(whole.step.ema.weights(), resumed.step.ema.weights())


def lasting(metrics):
    return [event for event in metrics if not event[0].startswith(("perf/", "cost/seconds"))]


def stop_after(run, steps):
    """Send this process SIGTERM, as a queue does, while it computes the ``steps``-th loss; an evaluation computes one too."""
    losses = run.task.losses
    calls = 0

    def interrupting(*args):
        nonlocal calls
        calls += 1
        if calls == steps * run.settings.accumulate:
            signal.raise_signal(signal.SIGTERM)
        return losses(*args)

    run.task.losses = interrupting


def test_resuming_skips_what_was_seen_without_reading_it(make_fit):
    part = make_fit("part")
    stop_after(part, 3)
    run_fit(part)
    resumed = make_fit("part")
    restore(resumed, read_checkpoint(part.checkpoints.last), part.checkpoints.last)
    run_fit(resumed)
    assert resumed.data.requested[0] == (1, 12, 8)


@pytest.mark.parametrize("num_targets", [0.0, 1.0])
def test_an_epoch_with_nothing_to_learn_from_does_not_pass_without_a_word(make_fit, caplog, num_targets):
    run = make_fit(max_epochs=2)
    run.step.first_look = FirstLook(run.task.model, required=True)
    run.task.loss_count = lambda batch: {"vectors": num_targets}
    assert run_fit(run) == "completed"
    lines = [line for line in caplog.messages if "no step so far held anything to learn from" in line]
    assert len(lines) == (0 if num_targets else 2)


class SixCameras(Vectors):
    """Each sample has six images."""

    @property
    def shape(self):
        return (6 * len(self.image_ids), self.side, self.side)


class CameraData(VectorData):
    batch_class = SixCameras


def test_six_images_per_sample_are_trained_exactly_once_by_a_run_that_is_stopped_and_resumed(make_fit):
    changes = {"max_epochs": 1, "log_interval": 1}
    whole = make_fit("whole", data=CameraData(), **changes)
    run_fit(whole)
    part = make_fit("part", data=CameraData(), **changes)
    stop_after(part, 4)
    assert run_fit(part) == "interrupted"
    checkpoint = read_checkpoint(part.checkpoints.last)
    assert checkpoint["progress"]["sample"] == 16
    resumed = make_fit("part", data=CameraData(), **changes)
    restore(resumed, checkpoint, part.checkpoints.last)
    assert run_fit(resumed) == "completed"
    trained = part.data.seen + resumed.data.seen
    assert sorted(index for _, index in trained) == list(range(24))
    assert_same(weights(whole), weights(resumed))
    assert (resumed.state.cost.images, resumed.state.cost.images_640) == (144, 144 * 64 / 640**2)


class ImageCounting(SixCameras):
    """Counts images where samples are meant."""

    @property
    def num_samples(self):
        return self.shape[0]


def test_batches_that_count_more_samples_than_there_are_end_the_run(make_fit):
    data = VectorData()
    data.batch_class = ImageCounting
    with pytest.raises(
        DataError, match=r"at sample 48 of epoch 1, but the data set has 24 training samples; .*not their images"
    ):
        run_fit(make_fit(data=data))


def test_a_position_past_the_end_of_the_data_is_refused(make_fit):
    part = make_fit()
    stop_after(part, 4)
    run_fit(part)
    checkpoint = read_checkpoint(part.checkpoints.last)
    checkpoint["progress"]["sample"] = 96
    with pytest.raises(
        CheckpointError, match=r"last\.pth stands at sample 96 of epoch 1, but the data set has 24 training"
    ):
        restore(make_fit(), checkpoint, part.checkpoints.last)


def test_another_model_is_refused_with_the_differences(make_fit):

    run = make_fit()
    run_fit(run)
    other = VectorTask()
    other.model[0] = torch.nn.Linear(5, 17)
    with pytest.raises(CheckpointError, match=r"0.weight: \(16, 5\) in the file, \(17, 5\) here"):
        restore(make_fit(task=other), read_checkpoint(run.checkpoints.last), run.checkpoints.last)


def test_best_holds_the_averaged_weights_and_can_be_resumed(make_fit):
    run = make_fit(ema={"decay": 0.9}, max_epochs=1)
    run_fit(run)
    best = read_checkpoint(run.checkpoints.best)
    assert run.checkpoints.best.samefile(run.checkpoints.last)
    assert_same(best["model_state_dict"], run.step.ema.weights())
    assert_same(best["training_state_dict"], weights(run))
    resumed = make_fit(ema={"decay": 0.9}, max_epochs=1)
    restore(resumed, best, run.checkpoints.best)
    assert_same(weights(resumed), weights(run))


def test_only_the_newest_epoch_checkpoints_are_kept(make_fit):
    run = make_fit(max_epochs=5, keep_last_n=2)
    run_fit(run)
    names = sorted(path.name for path in run.checkpoints.folder.iterdir())
    assert names == ["best.pth", "checkpoint_epoch_4.pth", "checkpoint_epoch_5.pth", "last.pth"]


def test_training_goes_on_when_the_checkpoint_folder_can_not_be_written(make_fit, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    run = make_fit()
    assert run_fit(run) == "completed"
    assert "NOT saved" in caplog.text


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(make_fit, caplog):
    run = make_fit(max_epochs=2)
    run_fit(run)
    # And with it checkpoint_epoch_2.pth, its other name.
    run.checkpoints.last.write_bytes(run.checkpoints.last.read_bytes()[:-10])
    path, checkpoint = run.checkpoints.newest()
    assert (path.name, checkpoint["epoch"]) == ("checkpoint_epoch_1.pth", 1)
    assert "falling back" in caplog.text


def test_last_is_also_saved_within_an_epoch_when_asked(make_fit):
    run = make_fit(max_epochs=1, save_every_steps=4, data=LookingData())
    run.data.path = run.checkpoints.last
    run_fit(run)
    assert run.data.found == [(0, 4)]
    assert read_checkpoint(run.checkpoints.last)["step"] == 6


class LookingData(VectorData):
    """Looks into ``path`` before the sixth step, as soon as there is one."""

    path = None

    def __init__(self):
        super().__init__()
        self.found = []

    def train_batches(self, *arguments, **named):
        for number, batch in enumerate(super().train_batches(*arguments, **named)):
            if number == 5:
                wait_until(self.path.exists)
                checkpoint = read_checkpoint(self.path)
                self.found.append((checkpoint["epoch"], checkpoint["step"]))
            yield batch


def test_an_early_stopped_run_stays_stopped_when_resumed(make_fit):
    changes = {"max_epochs": 50, "early_stopping": {"patience": 2, "min_delta": 1.0}}
    first = make_fit(**changes)
    run_fit(first)
    resumed = make_fit(**changes)
    restore(resumed, read_checkpoint(first.checkpoints.last), first.checkpoints.last)
    assert run_fit(resumed) == "early_stopped"
    assert resumed.state.epoch == first.state.epoch


@pytest.mark.parametrize(("changes", "last_step", "evaluations_before"), [({}, 18, 2), ({"max_iter": 8}, 8, 1)])
def test_a_run_stopped_at_its_very_last_step_is_still_evaluated_when_resumed(
    make_fit, changes, last_step, evaluations_before
):
    whole = make_fit("whole", **changes)
    run_fit(whole)
    part = make_fit("part", **changes)
    stop_after(part, last_step + evaluations_before)
    assert run_fit(part) == "interrupted"
    assert part.state.step == last_step
    resumed = make_fit("part", **changes)
    restore(resumed, read_checkpoint(part.checkpoints.last), part.checkpoints.last)
    assert run_fit(resumed) == "completed"
    assert_same(weights(whole), weights(resumed))
    assert whole.step.learning_rates() == resumed.step.learning_rates()
    assert (whole.state.step, whole.state.best, whole.state.metrics) == (
        last_step,
        resumed.state.best,
        resumed.state.metrics,
    )


def test_the_raw_weights_are_evaluated_beside_the_average(make_fit):
    both = make_fit("both", ema={"decay": 0.9, "also_raw": True})
    assert run_fit(both) == "completed"
    alone = make_fit("alone", ema={"decay": 0.9})
    assert run_fit(alone) == "completed"
    assert_same(weights(both), weights(alone))
    metrics = both.state.metrics
    assert alone.state.metrics == {name: value for name, value in metrics.items() if not name.startswith("val_raw/")}
    raw = evaluate(both.task, both.data, 8, both.step.precision, both.progress)
    assert {name: metrics[name] for name in ("val_raw/score", "val_raw/loss")} == {
        "val_raw/score": raw["val/score"], "val_raw/loss": raw["val/loss"],
    }  # fmt: skip
    assert metrics["val_raw/score"] != metrics["val/score"]


def test_the_raw_weights_can_be_what_is_judged(make_fit):
    run = make_fit(ema={"decay": 0.9, "also_raw": True}, objective="val_raw/score")
    run_fit(run)
    assert run.state.best.value == max(value for _, value in run.tracker.values("val_raw/score"))


def test_raw_weights_beside_no_average_are_refused():
    with pytest.raises(ValueError, match="also_raw=true with decay=null"):
        training_settings(ema={"decay": None, "also_raw": True})


def frozen_task():
    task = VectorTask()
    task.model[0].requires_grad_(False)
    return task


def test_a_checkpoint_that_averaged_frozen_weights_goes_on_bit_by_bit(make_fit):
    """Both were written by the commit before, their first layer changed after the average was made, as by training.init_from."""
    part, end = (RECORDED / f"frozen_with_ema{name}.pth" for name in ("", "_end"))
    run = make_fit("part", task=frozen_task(), ema={"decay": 0.9})
    restore(run, read_checkpoint(part), part)
    run_fit(run)
    whole, resumed = read_checkpoint(end), read_checkpoint(run.checkpoints.last)
    for key in ("model_state_dict", "training_state_dict"):
        assert_same(whole[key], resumed[key])
    assert_same(whole["ema_state_dict"]["weights"], resumed["ema_state_dict"]["weights"])
    assert whole["metrics"] == resumed["metrics"]


def test_frozen_weights_are_once_in_a_checkpoint_with_an_average(make_fit):
    run = make_fit(task=frozen_task(), ema={"decay": 0.9}, max_epochs=1)
    run_fit(run)
    saved = read_checkpoint(run.checkpoints.last)
    copies = [saved["model_state_dict"], saved["training_state_dict"], saved["ema_state_dict"]["weights"]]
    assert len({copy["0.weight"].untyped_storage().data_ptr() for copy in copies}) == 1
    assert len({copy["3.weight"].untyped_storage().data_ptr() for copy in copies}) == 2
    assert_same({name: copies[0][name] for name in ("0.weight", "0.bias")}, dict(list(weights(run).items())[:2]))


def test_frozen_weights_are_copied_once_for_all_saves(make_fit):
    class Touching(VectorData):
        def train_batches(self, epoch, *arguments, **options):
            if epoch == 2:
                run.task.model[0].weight.data.add_(1)  # unseen by its version: a second copy would show it
            return super().train_batches(epoch, *arguments, **options)

    run = make_fit(task=frozen_task(), data=Touching())
    before = run.task.model[0].weight.clone()
    run_fit(run)
    assert read_checkpoint(run.checkpoints.last)["model_state_dict"]["0.weight"].equal(before)


class KeepsArrays(MeanError):  # noqa: N818, it is a metric
    def arrays(self):
        return {"errors": np.array(self.errors)}


def test_arrays_of_the_best_evaluation_are_kept_beside_the_checkpoints(make_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(VectorTask, "new_metric", lambda self: KeepsArrays())
    run = make_fit(max_epochs=4)
    fit(run, StopRequest())
    with np.load(tmp_path / "run" / "val_detections.npz", allow_pickle=False) as kept:
        assert (int(kept["epoch"]), int(kept["step"])) == (run.state.best.epoch, run.state.best.step)
        assert 1 / (1 + kept["errors"].mean()) == run.state.best.value


def test_a_metric_without_arrays_keeps_none(make_fit, tmp_path):
    fit(make_fit(max_epochs=1), StopRequest())
    assert not (tmp_path / "run" / "val_detections.npz").exists()
