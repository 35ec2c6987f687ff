import itertools
import json
from dataclasses import replace

import pytest
import torch
from engine_parts import VectorData, make_fit  # noqa: F401 - a fixture

from winnow.engine.loop import fit
from winnow.engine.stop import StopRequest
from winnow.errors import DataError
from winnow.run.record import epoch_drawer, log_short_training, result_of
from winnow.tracking.null_tracker import NullTracker


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
    wanted = {f"best/{name.removeprefix('val/')}": value for name, value in result["best_metrics"].items()}
    assert tracked == {name: value for name, value in wanted.items() if name.count("/") == 1}
    assert len(tracked) < len(wanted)


@pytest.mark.parametrize("epochs", [2, 3])
def test_an_epoch_without_an_evaluation_leaves_the_metrics_of_the_last_one(make_fit, epochs):  # noqa: F811
    run = make_fit(eval_interval=2, max_epochs=4)
    with StopRequest() as stop:
        run.task.losses = stopping(run, stop, 6 * epochs)
        assert fit(run, stop) == "interrupted"
    assert result_of(run, "interrupted", None).metrics["val/score"] == run.tracker.values("val/score")[0][1]


class DrawsInitial:
    """An evaluation that draws how its weights stand, but in ``bad_epoch``."""

    def __init__(self, bad_epoch=None):
        self._bad_epoch = bad_epoch

    def draw_epoch(self, task, batches, folder, epoch):
        if epoch == self._bad_epoch:
            raise DataError("an image is gone")
        torch.rand(3)
        path = folder / f"{epoch}.txt"
        path.write_text(f"{task.model.training} {sum(batch.num_samples for batch in batches)}")
        return path


def drawing(run, folder, evaluation):
    run.data.preview = lambda count, image_size: itertools.islice(run.data.val_batches(image_size), 1)
    draw = epoch_drawer(
        evaluation, run.task, run.data, run.sizes.final, run.step.precision, NullTracker(folder), folder
    )
    return replace(run, draw_epoch=draw)


def test_each_evaluation_is_drawn_and_changes_nothing_in_the_run(make_fit, tmp_path):  # noqa: F811
    plain = make_fit("plain", eval_interval=2, max_epochs=4)
    drawn = drawing(make_fit("drawn", eval_interval=2, max_epochs=4), tmp_path / "pictures", DrawsInitial())
    streams = []
    for run in (plain, drawn):
        torch.manual_seed(5)
        with StopRequest() as stop:
            assert fit(run, stop) == "completed"
        streams.append(torch.get_rng_state())
    assert {path.name: path.read_text() for path in (tmp_path / "pictures").iterdir()} == dict.fromkeys(
        ("2.txt", "4.txt"), f"False {next(iter(drawn.data.val_batches(8))).num_samples}"
    )
    assert all(drawn.task.model.state_dict()[name].equal(v) for name, v in plain.task.model.state_dict().items())
    assert streams[0].equal(streams[1])


def test_what_can_not_be_drawn_ends_no_run(make_fit, tmp_path, caplog):  # noqa: F811
    run = drawing(make_fit(max_epochs=2), tmp_path, DrawsInitial(bad_epoch=1))
    with StopRequest() as stop:
        assert fit(run, stop) == "completed"
    assert "no picture of epoch 1: an image is gone" in caplog.text
    assert (tmp_path / "2.txt").exists()


def stopping(run, stop, steps):
    left = iter(range(steps, -100, -1))

    def losses(*args, original=run.task.losses):
        if run.task.model.training and next(left) == 0:
            stop.requested = True
        return original(*args)

    return losses


@pytest.mark.parametrize(("num_samples", "changes", "words"), [
    (40, {"scheduler": {"name": "constant"}}, "an epoch has 10 steps"),
    (120, {"scheduler": {"name": "constant", "warmup_steps": 10}}, "the warm-up takes 10 of 90 steps"),
    (116, {"scheduler": {"name": "constant", "warmup_steps": 100}}, "the warm-up takes 29 of 87 steps and an epoch has 29 steps"),
    (120, {"scheduler": {"name": "constant", "warmup_part": 0.1}}, None),
    (40, {"overfit": 2}, None), (40, {"subset_size": 40}, None),
])  # fmt: skip
def test_a_run_of_few_steps_says_so_in_one_line(make_fit, caplog, num_samples, changes, words):  # noqa: F811
    run = make_fit(data=VectorData(num_samples=num_samples), **changes)
    with caplog.at_level("INFO", logger="winnow"):
        log_short_training(run)
        log_short_training(replace(run, trial=object()))  # a sweep's
    found = [record for record in caplog.records if "a small set" in record.message]
    assert [record.levelname for record in found] == (["INFO"] if words else [])
    assert words is None or f": {words};" in found[0].message
