"""What a resumed run does with settings that differ from those it began with: docs/checkpoints.md, one test per sentence."""

import pytest
import torch
from engine_parts import VectorData, VectorTask

from winnow.checkpoints.file import read_checkpoint
from winnow.engine.loop import fit, restore
from winnow.engine.schedule import LrSchedule
from winnow.engine.settings import Objective
from winnow.engine.state import TrainState
from winnow.engine.stop import StopRequest
from winnow.errors import CheckpointError


class StopAt:
    """Stands for a StopRequest: the signal comes in that step."""

    def __init__(self, run, step):
        self.run, self.step = run, step

    @property
    def requested(self):
        return self.run.state.step >= self.step


@pytest.fixture
def stopped_at(make_fit):
    """Return a run stopped after that many steps, six to an epoch of 24 samples, saved in the folder ``part``."""

    def make(steps, **changes):
        run = make_fit("part", **changes)
        assert fit(run, StopAt(run, steps)) == "interrupted"
        return run

    return make


@pytest.fixture
def resumed(make_fit):
    """Return the run of the folder ``part`` under other settings, restored but not yet going on."""

    def make(name="last", **changes):
        run = make_fit("part", **changes)
        path = run.checkpoints.folder / f"{name}.pth"
        restore(run, read_checkpoint(path), path)
        return run

    return make


def go_on(run):
    with StopRequest() as stop:
        return fit(run, stop)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "steps_left"), [(4, 1, 4), (3, 1, 6), (5, 1, 4), (4, 3, 2), (7, 2, 2), (16, 1, 1)]
)
def test_the_rest_of_an_epoch_is_cut_by_the_new_batch_size(stopped_at, resumed, batch_size, accumulate, steps_left):
    part = stopped_at(8)
    run = resumed(data=VectorData(batch_size=batch_size), batch_size=batch_size, accumulate=accumulate, max_epochs=2)
    assert run.total_steps == 8 + steps_left
    assert go_on(run) == "completed"
    assert run.state.step == 8 + steps_left
    taken = part.data.seen[: 8 * 4] + run.data.seen
    assert len(taken) == len(set(taken)) == 48
    assert sorted(index for epoch, index in taken if epoch == 2) == list(range(24))
    in_order = VectorData(batch_size=24)
    list(in_order.train_batches(2, 8))
    assert taken[24:] == in_order.seen


def test_a_run_with_changed_batches_can_itself_be_stopped_and_resumed_bit_by_bit(stopped_at, resumed):
    stopped_at(8)
    changed = {"batch_size": 5, "scheduler": {"name": "multistep", "milestones": [2]}, "log_interval": 1}
    whole = resumed(data=VectorData(batch_size=5), **changed)
    assert go_on(whole) == "completed"
    stopped_at(8)
    part = resumed(data=VectorData(batch_size=5), **changed)
    assert fit(part, StopAt(part, 14)) == "interrupted"
    rest = resumed(data=VectorData(batch_size=5), **changed)
    assert go_on(rest) == "completed"
    assert rest.total_steps == whole.total_steps
    for name in ("lr/default", "train/loss", "val/score"):
        assert whole.tracker.values(name) == part.tracker.values(name) + rest.tracker.values(name)


def test_more_epochs_stretch_the_cosine_over_all_of_them(stopped_at, resumed):
    stopped_at(8)
    run = resumed(max_epochs=10)
    assert run.total_steps == 60
    assert run.step.schedule.factor(8) == pytest.approx(LrSchedule(run.settings.scheduler, 60, 6).factor(8))


@pytest.mark.parametrize("changes", [{"max_epochs": 1}, {"max_iter": 3}])
def test_a_limit_already_passed_ends_the_run_after_an_evaluation(stopped_at, resumed, changes):
    stopped_at(8)
    run = resumed(**changes)
    assert go_on(run) == "completed"
    assert run.state.step == 8
    assert [step for step, _ in run.tracker.values("val/score")] == [8]


def test_milestones_are_epochs_whatever_the_batch_size(stopped_at, resumed):
    stopped_at(8, scheduler={"name": "multistep", "milestones": [2]})
    run = resumed(
        data=VectorData(batch_size=8), scheduler={"name": "multistep", "milestones": [2]}, max_epochs=4, log_interval=1
    )
    go_on(run)
    # 16 samples are left of epoch 2: two steps of 8, then three per epoch.
    rates = dict(run.tracker.values("lr/default"))
    assert {step: round(rate, 6) for step, rate in rates.items()} == {9: 0.01, 10: 0.01} | dict.fromkeys(
        range(11, 17), 0.001
    )


def test_another_warm_up_and_lr_hold_from_the_resumed_step_on(stopped_at, resumed):
    stopped_at(4)
    run = resumed(
        scheduler={"name": "constant", "warmup_steps": 6, "warmup_factor": 0.4},
        optimizer={"_target_": "torch.optim.AdamW", "lr": 0.1},
        log_interval=1,
    )
    go_on(run)
    rates = dict(run.tracker.values("lr/default"))
    assert [round(rates[step], 4) for step in (5, 6, 7, 8)] == [0.08, 0.09, 0.1, 0.1]


def test_an_average_switched_on_begins_at_the_weights_of_the_checkpoint(stopped_at, resumed, caplog):
    part = stopped_at(8)
    run = resumed(ema={"decay": 0.9})
    assert "the average begins at the weights of the checkpoint" in caplog.text
    assert all(value.equal(part.task.model.state_dict()[name]) for name, value in run.step.ema.weights().items())
    go_on(run)
    assert run.step.ema.num_updates == 10


def test_an_average_switched_off_is_left_behind(stopped_at, resumed, caplog):
    part = stopped_at(8, ema={"decay": 0.9})
    run = resumed()
    assert "averaged weights are left behind" in caplog.text
    assert all(value.equal(part.task.model.state_dict()[name]) for name, value in run.task.model.state_dict().items())
    assert go_on(run) == "completed"


@pytest.mark.parametrize(
    ("before", "after", "scale"), [("off", "fp16", 65536.0), ("fp16", "off", 1.0), ("fp16", "bf16", 1.0)]
)
def test_another_number_format_starts_a_scaler_or_drops_it(stopped_at, resumed, before, after, scale):
    stopped_at(8, amp=before)
    run = resumed(amp=after)
    assert run.step.scaler.get_scale() == scale
    assert go_on(run) == "completed"


@pytest.mark.parametrize(("objective", "mode"), [("val/loss", "min"), ("val/score", "min")])
def test_another_objective_makes_best_start_anew(stopped_at, resumed, objective, mode, caplog):
    stopped_at(14)
    run = resumed(objective=objective, mode=mode)
    assert run.state.best is None
    assert "best starts anew" in caplog.text
    go_on(run)
    assert (run.state.best.metric, run.state.best.epoch) == (objective, 3)


@pytest.mark.parametrize(
    ("patience", "status", "epochs"), [(2, "early_stopped", 3), (4, "early_stopped", 5), (None, "completed", 6)]
)
def test_patience_counts_the_evaluations_before_the_resume(stopped_at, resumed, patience, status, epochs):
    stopped_at(20, early_stopping={"patience": 3, "min_delta": 10.0}, max_epochs=6)
    run = resumed(early_stopping={"patience": patience, "min_delta": 10.0}, max_epochs=6)
    assert go_on(run) == status
    assert run.state.epoch == epochs


@pytest.mark.parametrize(("changes", "message"), [
    ({"freeze": ["0.bias"]}, "parameter group of 0.bias: default in the file, frozen here"),
    ({"param_groups": [{"name": "head", "pattern": "^3"}]}, "parameter group of 3.weight: default in the file, head here"),
])  # fmt: skip
def test_another_choice_of_what_trains_is_refused_by_name(stopped_at, resumed, changes, message):
    stopped_at(2)
    task = VectorTask()
    if "freeze" in changes:
        task.model[0].bias.requires_grad_(False)
    with pytest.raises(CheckpointError, match=message):
        resumed(task=task, **changes)


def test_other_data_and_classes_are_refused(stopped_at, resumed):
    stopped_at(2)
    data = VectorData()
    data.fingerprint = "others"
    with pytest.raises(CheckpointError, match="1 differences:\n  data fingerprint: vectors in the file, others here"):
        resumed(data=data)


@pytest.mark.parametrize(("changes", "message"), [
    ([], None),
    (["3 boxes: data.mend=[] reads as before"], "the data is read otherwise since: 3 boxes: data.mend=\\[\\] reads as before"),
    (None, "data fingerprint: vectors in the file, others here"),
])  # fmt: skip
def test_data_that_knows_its_older_fingerprint_says_what_changed(stopped_at, resumed, changes, message):
    stopped_at(2)
    data = VectorData()
    data.fingerprint = "others"
    data.changes_since = {"vectors": changes}.get
    if message is None:
        resumed(data=data)
    else:
        with pytest.raises(CheckpointError, match=f"1 differences:\n  {message}"):
            resumed(data=data)


def test_a_fresh_run_has_the_plain_schedule():
    from engine_parts import training_settings

    settings = training_settings(max_epochs=5, accumulate=4)
    schedule = LrSchedule.of(settings, VectorData(), TrainState(Objective(metric="val/score", mode="max")))
    assert (schedule.total_steps, schedule.steps_per_epoch, schedule.total_epochs) == (10, 2, 5)
    assert torch.tensor([schedule.factor(step) for step in range(10)]).diff().le(0).all()


def test_both_halves_of_a_group_resume_under_one_learning_rate(stopped_at, resumed, make_fit):
    split = {"no_decay": ["bias"], "param_groups": [{"name": "first", "pattern": "^0", "lr_scale": 0.5}]}
    whole = make_fit("whole", **split)
    assert go_on(whole) == "completed"
    stopped_at(8, **split)
    part = resumed(**split)
    assert go_on(part) == "completed"
    assert all(value.equal(part.task.model.state_dict()[name]) for name, value in whole.task.model.state_dict().items())
    assert part.step.learning_rates().keys() == {"lr/first", "lr/default"}
    assert len(part.tracker.values("lr/first")) == len({step for step, _ in part.tracker.values("lr/first")})


def test_another_list_of_what_does_not_decay_is_another_run(stopped_at, resumed):
    stopped_at(8)
    with pytest.raises(
        CheckpointError, match=r"parameter group of 0.bias: default in the file, default \(training.no_decay\) here"
    ):
        resumed(no_decay=["bias"])
