import pytest
from engine_parts import VectorData, VectorTask

from winnow.engine.settings import Objective
from winnow.errors import ConfigError
from winnow.run.build import choose_objective

RAW = Objective(metric="val_raw/score", mode="max")


def test_the_raw_weights_can_be_the_objective_where_they_are_evaluated():
    assert choose_objective(RAW, VectorTask(), VectorData(), also_raw=True) == RAW


def test_the_raw_weights_are_no_objective_where_they_are_not_evaluated():
    with pytest.raises(
        ConfigError, match="'val_raw/score' is not a metric of this run; allowed: train/loss, val/loss, val/score$"
    ):
        choose_objective(RAW, VectorTask(), VectorData())
