import math

import pytest
import torch

from winnow.engine.settings import Objective
from winnow.engine.state import Best, LossSums, TrainState

AP = Objective(metric="val/map", mode="max")
MISS_RATE = Objective(metric="val/miss_rate", mode="min")
CPU = torch.device("cpu")


def evaluated(state, *values, min_delta=0.0, losses=()):
    """Let ``state`` note one evaluation per value, of an epoch each; return those that were best, and what patience counted."""
    bests, counted = [], []
    for number, value in enumerate(values):
        state.epoch += 1
        loss = {"val/loss": losses[number]} if losses else {}
        if state.take_note({state.objective.metric: value, **loss}, min_delta):
            bests.append(state.epoch)
        counted.append(state.evaluations_without_gain)
    return bests, counted


@pytest.mark.parametrize(("objective", "sign"), [(AP, 1), (MISS_RATE, -1)])
def test_the_best_is_the_best_by_plain_comparison_and_min_delta_is_for_patience_alone(objective, sign):
    state = TrainState(objective)
    values = [sign * value for value in (0.50, 0.52, 0.54, 0.53, 0.56, 0.57)]
    assert evaluated(state, *values, min_delta=0.05) == ([1, 2, 3, 5, 6], [0, 1, 2, 3, 0, 1])
    assert state.best == Best(objective.metric, sign * 0.57, 6, 0)
    assert state.best_metrics == {objective.metric: sign * 0.57}


@pytest.mark.parametrize(("losses", "best"), [
    ((3.0, 2.0, 4.0), 2), ((3.0, 3.0, 3.0), 3), ((), 3), ((math.nan, 3.0, math.nan), 2), ((math.nan, math.nan, math.nan), 3),
])  # fmt: skip
def test_of_equal_values_the_lower_loss_is_best_and_else_the_later_epoch(losses, best):
    state = TrainState(AP)
    _, counted = evaluated(state, 0.5, 0.5, 0.5, losses=losses)
    assert state.best.epoch == best
    assert counted == [0, 1, 2], "a lower loss is no gain"


def test_a_worse_value_is_not_best_however_low_its_loss():
    assert evaluated(TrainState(AP), 0.5, 0.4, losses=(3.0, 1.0))[0] == [1]


@pytest.mark.parametrize(("objective", "worst", "values"), [
    (AP, 0.0, (0.0, 0.0, 0.0, 0.1, 0.0, 0.1)), (MISS_RATE, 100.0, (100.0, 100.0, 100.0, 97.0, 100.0, 97.0)),
])  # fmt: skip
def test_patience_begins_with_the_first_value_that_is_not_the_worst(objective, worst, values):
    assert evaluated(TrainState(objective, worst), *values)[1] == [0, 0, 0, 0, 1, 2]
    assert evaluated(TrainState(objective), *values)[1] == [0, 1, 2, 0, 1, 2], "no worst value is stated"


def test_an_evaluation_without_a_value_counts_and_is_not_best():
    state = TrainState(AP, 0.0)
    assert evaluated(state, math.nan, math.nan, 0.0, 0.1) == ([3, 4], [1, 2, 0, 0])


def checkpoint_of(state):
    best = vars(state.best) if state.best is not None else None
    return {
        "epoch": state.epoch, "step": state.step, "metric": state.objective.metric, "best": best, "metrics": state.metrics,
        "progress": state.state_dict(),
    }  # fmt: skip


@pytest.mark.parametrize("stop_after", range(7))
def test_a_restored_state_goes_on_as_if_it_had_not_been_stopped(stop_after):
    values, losses = (0.0, 0.0, 0.5, 0.52, 0.52, 0.5, 0.56), (7.0, 6.0, 5.0, 3.0, 4.0, 2.0, 1.0)
    whole, part, resumed = (TrainState(AP, 0.0) for _ in range(3))
    evaluated(whole, *values, min_delta=0.05, losses=losses)
    evaluated(part, *values[:stop_after], min_delta=0.05, losses=losses)
    resumed.load_checkpoint(checkpoint_of(part), CPU)
    evaluated(resumed, *values[stop_after:], min_delta=0.05, losses=losses[stop_after:])
    assert checkpoint_of(resumed)["best"] == checkpoint_of(whole)["best"]
    for name in ("best_metrics", "evaluation", "reached", "evaluations_without_gain"):
        assert getattr(resumed, name) == getattr(whole, name)


def test_a_state_saved_before_best_and_patience_were_told_apart_goes_on():
    state = TrainState(AP, 0.0)
    evaluated(state, 0.5, 0.4, losses=(3.0, 2.0))
    state.metrics = {"val/map": 0.4, "val/loss": 2.0}
    saved = checkpoint_of(state)
    for key in ("best_metrics", "evaluation", "reached"):
        del saved["progress"][key]
    resumed = TrainState(AP, 0.0)
    resumed.load_checkpoint(saved, CPU)
    assert (resumed.reached, resumed.evaluations_without_gain) == (0.5, 1)
    assert resumed.best_metrics == {"val/map": 0.5}
    assert resumed.evaluation == {"val/map": 0.4, "val/loss": 2.0}
    assert evaluated(resumed, 0.52, min_delta=0.05) == ([3], [2])


def test_another_objective_forgets_what_was_best(caplog):
    state = TrainState(AP)
    evaluated(state, 0.5, 0.4)
    resumed = TrainState(MISS_RATE, 100.0)
    resumed.load_checkpoint(checkpoint_of(state), CPU)
    assert (resumed.best, resumed.best_metrics, resumed.reached, resumed.evaluations_without_gain) == (
        None,
        {},
        None,
        0,
    )
    assert "best starts anew" in caplog.text


def test_patience_that_a_nan_began_goes_on_at_the_worst_value():
    assert evaluated(TrainState(AP, 0.0), math.nan, 0.0, 0.0)[1] == [1, 0, 1]


def test_losses_are_averaged_over_the_steps_since_the_last_time():
    sums = LossSums()
    assert sums.means() == {}
    for values in ((1.0, 10.0), (3.0, 20.0)):
        sums.add({"a": torch.tensor(values[0]), "b": torch.tensor(values[1])})
    means = sums.means()
    assert means == {"train/loss": 17.0, "train/a": 2.0, "train/b": 15.0}
    assert {type(value) for value in means.values()} == {float}
    sums.clear()
    sums.add({"a": torch.tensor(5.0)})
    sums.add({"a": torch.tensor(7.0)})
    assert sums.means() == {"train/loss": 6.0, "train/a": 6.0}


def test_adding_a_loss_takes_it_as_it_is_now():
    sums, loss = LossSums(), torch.tensor(1.0)
    sums.add({"a": loss})
    loss += 5
    assert sums.means()["train/a"] == 1.0


def test_what_other_versions_wrote_more_or_less_of_does_no_harm():
    state = TrainState(AP)
    evaluated(state, 0.5)
    saved = checkpoint_of(state)
    saved["progress"]["cost"] = {"images": 3, "joules": 9.0}
    saved["best"] |= {"place": "here"}
    resumed = TrainState(AP)
    resumed.load_checkpoint(saved, CPU)
    assert resumed.cost.metrics() == {"cost/images": 3.0, "cost/images_640": 0.0, "cost/seconds": 0.0}
    assert resumed.best == state.best


def test_cost_counts_images_and_their_pixels():
    state = TrainState(AP)
    state.cost.add(4, 4 * 640 * 320)
    state.cost.add(2, 2 * 640 * 640)
    assert state.cost.metrics() == {"cost/images": 6.0, "cost/images_640": 4.0, "cost/seconds": 0.0}
    resumed = TrainState(AP)
    state.metrics, state.epoch, state.step, state.sample = {"val/map": 0.5}, 2, 7, 3
    state.interval.add({"a": torch.tensor(2.0)})
    state.epoch_losses.add({"b": torch.tensor(4.0)})
    resumed.load_checkpoint(checkpoint_of(state), CPU)
    assert (resumed.epoch, resumed.step, resumed.sample, resumed.metrics) == (2, 7, 3, {"val/map": 0.5})
    assert resumed.cost == state.cost
    assert resumed.interval.means() == {"train/loss": 2.0, "train/a": 2.0}
    assert resumed.epoch_losses.means() == {"train/loss": 4.0, "train/b": 4.0}
