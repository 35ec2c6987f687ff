import pytest

from winnow.engine.schedule import LrSchedule, SizeSchedule
from winnow.engine.settings import SchedulerSettings


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


def test_warmup_takes_at_most_a_third_of_a_short_run():
    assert schedule(name="cosine", total_steps=30, warmup_steps=500).factor(10) == 1.0


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (29, 1.0), (30, 0.1), (59, 0.1), (60, 0.01), (99, 0.01)])
def test_multistep_multiplies_at_the_end_of_each_milestone_epoch(step, factor):
    assert schedule(name="multistep", milestones=[3, 6]).factor(step) == pytest.approx(factor)


@pytest.mark.parametrize(("epoch", "size"), [(1, 640), (19, 640), (20, 800), (39, 800), (40, 960), (99, 960)])
def test_image_size_follows_the_schedule(epoch, size):
    assert SizeSchedule.of([(1, 640), (20, 800), (40, 960)], 512).size(epoch) == size


def test_without_a_schedule_every_epoch_has_the_data_size():
    sizes = SizeSchedule.of(None, 512)
    assert sizes.size(1) == sizes.size(100) == sizes.final == 512
