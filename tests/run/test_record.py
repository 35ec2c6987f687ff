import json

import pytest
from engine_parts import make_fit  # noqa: F401 - a fixture

from winnow.engine.loop import fit
from winnow.engine.stop import StopRequest
from winnow.run.record import result_of


def worse_in_epoch_3(run):
    """Return scores that fall after the second epoch."""
    evaluations = iter((0.5, 0.8, 0.3))
    run.task.new_metric = lambda original=run.task.new_metric: scoring(original(), evaluations)
    return run


def scoring(metric, evaluations):
    metric.compute = lambda: {"score": next(evaluations)}
    return metric


def test_metrics_are_those_of_the_last_evaluation_and_best_metrics_those_of_the_best(make_fit, tmp_path):  # noqa: F811
    run = worse_in_epoch_3(make_fit())
    with StopRequest() as stop:
        fit(run, stop)
    result_of(run, "completed", None).write(tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["objective"], result["best"]["epoch"]) == (0.8, 2)
    assert (result["metrics"]["val/score"], result["best_metrics"]["val/score"]) == (0.3, 0.8)
    losses = [value for _, value in run.tracker.values("val/loss")]
    assert (result["metrics"]["val/loss"], result["best_metrics"]["val/loss"]) == (losses[2], losses[1])
    assert result["best_metrics"]["train/loss"] != result["metrics"]["train/loss"]
    tracked = {name: value for name, value, step in run.tracker.metrics if name.startswith("best/")}
    assert tracked == {f"best/{name.removeprefix('val/')}": value for name, value in result["best_metrics"].items()}


@pytest.mark.parametrize("epochs", [2, 3])
def test_an_epoch_without_an_evaluation_leaves_the_metrics_of_the_last_one(make_fit, epochs):  # noqa: F811
    run = make_fit(eval_interval=2, max_epochs=4)
    with StopRequest() as stop:
        run.task.losses = stopping(run, stop, 6 * epochs)
        assert fit(run, stop) == "interrupted"
    assert result_of(run, "interrupted", None).metrics["val/score"] == run.tracker.values("val/score")[0][1]


def stopping(run, stop, steps):
    left = iter(range(steps, -100, -1))

    def losses(*args, original=run.task.losses):
        if run.task.model.training and next(left) == 0:
            stop.requested = True
        return original(*args)

    return losses
