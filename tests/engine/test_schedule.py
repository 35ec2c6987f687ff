import pytest
from engine_parts import VectorData, training_settings

from winnow.engine.schedule import LrSchedule, SizeSchedule
from winnow.engine.settings import Objective, SchedulerSettings
from winnow.engine.state import TrainState


def schedule(total_steps=100, steps_per_epoch=10, **settings):
    return LrSchedule(SchedulerSettings(**settings), total_steps, steps_per_epoch)


def test_warmup_rises_linearly_from_its_factor_to_one():
    lr = schedule(name="constant", warmup_steps=10, warmup_factor=0.1)
    assert lr.factor(0) == pytest.approx(0.1)
    assert lr.factor(5) == pytest.approx(0.55)
    assert lr.factor(10) == lr.factor(99) == 1.0


def test_cosine_falls_from_one_to_min_factor_at_the_last_step():
    lr = schedule(name="cosine", warmup_steps=20, min_factor=0.1)
    assert lr.factor(20) == pytest.approx(1.0)
    assert lr.factor(60) == pytest.approx(0.55)
    assert lr.factor(100) == pytest.approx(0.1)
    assert all(lr.factor(step) > lr.factor(step + 1) for step in range(20, 100))
    assert lr.factor(150) == pytest.approx(0.1)


def test_warmup_takes_at_most_a_third_of_a_short_run():
    assert schedule(name="cosine", total_steps=30, warmup_steps=500).factor(10) == 1.0


@pytest.mark.parametrize(("part", "steps"), [(None, 20), (0.05, 10), (0.0, 0), (0.9, 66)])
def test_warmup_may_be_a_part_of_the_run(part, steps):
    lr = schedule(name="constant", total_steps=200, warmup_steps=20, warmup_part=part)
    assert lr.warmup_steps == steps
    assert lr.factor(steps) == 1.0
    assert steps == 0 or lr.factor(steps - 1) < 1.0


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (29, 1.0), (30, 0.1), (59, 0.1), (60, 0.01), (99, 0.01)])
def test_multistep_multiplies_at_the_end_of_each_milestone_epoch(step, factor):
    assert schedule(name="multistep", milestones=[3, 6]).factor(step) == pytest.approx(factor)


@pytest.mark.parametrize(("epoch", "size"), [(1, 640), (19, 640), (20, 800), (39, 800), (40, 960), (99, 960)])
def test_image_size_follows_the_schedule(epoch, size):
    assert SizeSchedule.of([(1, 640), (20, 800), (40, 960)], 512).size(epoch) == size


def test_without_a_schedule_every_epoch_has_the_data_size():
    sizes = SizeSchedule.of(None, 512)
    assert sizes.size(1) == sizes.size(100) == sizes.final == 512


@pytest.mark.parametrize(("epoch", "step", "sample", "changes", "total", "epochs"), [
    (0, 0, 0, {}, 18, 3), (0, 0, 0, {"accumulate": 4}, 6, 3), (0, 0, 0, {"max_iter": 7}, 7, 2),
    (0, 0, 0, {"max_iter": 99}, 18, 3),
    (1, 6, 0, {}, 18, 3), (1, 3, 0, {}, 15, 3), (1, 8, 8, {}, 18, 3), (1, 8, 8, {"accumulate": 4}, 11, 3),
    (2, 12, 0, {"max_iter": 5}, 12, 2), (3, 18, 0, {"max_epochs": 2}, 18, 3),
])  # fmt: skip
def test_a_run_takes_the_steps_that_it_made_and_those_that_todays_settings_need(
    epoch, step, sample, changes, total, epochs
):
    state = TrainState(Objective(metric="val/score", mode="max"), epoch=epoch, step=step, sample=sample)
    lr = LrSchedule.of(training_settings(**changes), VectorData(), state)
    assert (lr.total_steps, lr.total_epochs) == (total, epochs)
