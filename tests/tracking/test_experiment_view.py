"""What MLflow's pages are given besides numbers: the view of an experiment, and the data set of a run."""

import json

import pytest

from winnow.tracking.experiment_view import (
    VIEW_TAG,
    data_set_in,
    experiment_tag,
    key_of,
    metric_column,
    rank_of,
    view_of,
)


def test_a_view_becomes_the_state_of_mlflows_page():
    columns = [metric_column("best/map"), "params.`training.optimizer.lr`"]
    tag = view_of("lr and bs", columns, columns[0], maximize=True, only="tags.`winnow.study` = 'lr and bs'")
    key, text = experiment_tag(tag[VIEW_TAG])
    state = json.loads(text)
    assert key == "winnow-lr-and-bs"
    assert state["selectedColumns"] == state["columnOrder"] == columns
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`best/map`", False)
    assert state["searchFilter"] == "tags.`winnow.study` = 'lr and bs'"


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "3", '{"key": "a"}', '{"columns": 1}'])
def test_a_damaged_view_is_none(text):
    assert experiment_tag(text) is None


def test_a_key_can_stand_in_an_address():
    assert key_of("größe/2 & more") == "winnow-gr-e-2-more"


def test_a_data_set_has_a_digest_that_fits_and_changes_with_the_data():
    tags = {"winnow.data": "digits", "winnow.data_source": "data/digits", "winnow.data_fingerprint": "a" * 64}
    found = data_set_in(tags)
    assert found["name"] == "digits"
    assert json.loads(found["source"]) == {"uri": "data/digits"}
    assert len(found["digest"]) == 16
    assert data_set_in({**tags, "winnow.data_fingerprint": "b" * 64})["digest"] != found["digest"]
    assert data_set_in({**tags, "winnow.data_fingerprint": "short"})["digest"] == "short"
    assert data_set_in({"winnow.data": "digits"}) is None


def test_what_is_compared_first_comes_first_and_single_classes_after_their_group():
    names = [
        "perf/images_per_second",
        "epoch",
        "train/loss",
        "val/map_class/car",
        "val/map",
        "cost/seconds",
        "best/map",
        "own",
    ]
    wanted = [
        "best/map",
        "val/map",
        "val/map_class/car",
        "train/loss",
        "epoch",
        "cost/seconds",
        "perf/images_per_second",
        "own",
    ]
    assert sorted(names, key=rank_of) == wanted
