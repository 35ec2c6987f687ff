from functools import partial
from types import SimpleNamespace

import pytest
from engine_parts import VectorData, VectorTask

from winnow.engine.settings import Objective
from winnow.errors import ConfigError
from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.ink.metric import InkMetric
from winnow.run.build import choose_objective, worst_value

RAW = Objective(metric="val_raw/score", mode="max")


def test_the_raw_weights_can_be_the_objective_where_they_are_evaluated():
    assert choose_objective(RAW, VectorTask(), VectorData(), also_raw=True) == RAW


def test_the_raw_weights_are_no_objective_where_they_are_not_evaluated():
    with pytest.raises(
        ConfigError, match="'val_raw/score' is not a metric of this run; allowed: train/loss, val/loss, val/score$"
    ):
        choose_objective(RAW, VectorTask(), VectorData())


@pytest.mark.parametrize(("new_metric", "objective", "worst"), [
    (partial(CocoAp, ["car"]), "val/map", 0.0), (partial(CocoAp, ["car"]), "val_raw/map_class/car", 0.0),
    (partial(CocoAp, ["car"]), "val/loss", None), (partial(InkMetric, 0.5, 0.3, True), "val/f1_1px", 0.0),
    (partial(InkMetric, 0.5, 0.3, True), "val/width_error_px", None), (VectorTask().new_metric, "val/score", None),
])  # fmt: skip
def test_the_worst_value_is_what_the_metric_states(new_metric, objective, worst):
    task = SimpleNamespace(new_metric=new_metric)
    assert worst_value(Objective(metric=objective, mode="max"), task) == worst
