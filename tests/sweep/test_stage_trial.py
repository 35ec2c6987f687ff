import pytest

from winnow.sweep.stage_trial import StageTrial


class Recorder:
    """A trial that keeps what it hears and wants to be pruned."""

    def __init__(self):
        self.heard, self.costs = [], []

    def report(self, value, epoch):
        self.heard.append((epoch, value))

    def spend(self, cost):
        self.costs.append(cost)

    def should_prune(self):
        return True


@pytest.mark.parametrize(("is_compared", "heard"), [(True, [(31, 0.5), (32, 0.6)]), (False, [])])
def test_a_stage_reports_behind_the_epochs_planned_before_it(is_compared, heard):
    trial = Recorder()
    stage = StageTrial(trial, first_epoch=30, is_compared=is_compared, cost_before={})
    stage.report(0.5, 1)
    stage.report(0.6, 2)
    assert trial.heard == heard
    assert stage.should_prune() == is_compared


def test_a_stage_that_is_not_compared_tells_its_cost_beside_that_of_the_stages_before():
    trial = Recorder()
    stage = StageTrial(trial, first_epoch=30, is_compared=False, cost_before={"images": 100, "seconds": 2.0})
    stage.spend({"images": 10, "images_640": 0.5})
    assert trial.costs == [{"images": 110, "images_640": 0.5, "seconds": 2.0}]
