"""The configuration that a search starts from is the first trial of a new study."""

import pytest
from space_parts import composer, space_of
from sweep_parts import sweep, table, write_app

from hydra_plugins.winnow_sweeper._default_trial import default_params

CONFIG = {"training": {"optimizer": {"lr": 1e-3}, "batch_size": 8}, "model": {"depths": [1, 2]}}


@pytest.mark.parametrize(("searched", "expected"), [
    ({"training__batch_size": "choice(4, 8)", "training__optimizer__lr": "tag(log, interval(1e-5, 1e-2))"},
     {"training.batch_size": 8, "training.optimizer.lr": 1e-3}),
    ({"model__depths": "choice([1,1],[1,2])"}, {"model.depths": "[1,2]"}),
    ({"model": "choice(fcos_tiny, deformable_detr)"}, {"model": "fcos_tiny"}),
    ({}, None),
])  # fmt: skip
def test_it_has_the_values_of_the_config_as_the_study_writes_them(searched, expected):
    assert default_params(space_of(**searched), CONFIG, {"model": "fcos_tiny"}) == expected


@pytest.mark.parametrize(("searched", "words"), [
    ({"training__batch_size": "choice(16, 32)"}, "it has training.batch_size=8, not a choice; allowed: choice(16, 32)"),
    ({"training__optimizer__lr": "interval(0.1, 0.2)"}, "it has training.optimizer.lr=0.001, out of range"),
    ({"+training__depth": "choice(1, 2)"}, "it has no training.depth"),
])  # fmt: skip
def test_outside_the_space_it_is_left_out_and_the_log_says_why(searched, words, caplog):
    space = space_of(**searched)
    with caplog.at_level("INFO"):
        assert default_params(space, CONFIG, {}) is None
    assert f"the default configuration is not tried first: {words}" in caplog.text


def test_the_embedded_config_is_inside_the_space_of_lr_bs():
    space = space_of(training__optimizer__lr="tag(log, interval(1e-5, 1e-2))", training__batch_size="choice(4, 8, 16)")
    assert default_params(space, composer()([]), {}) is not None


def values_of(folder):
    return [float(row["param_x"]) for row in table(folder)]


def test_a_sweep_begins_with_it_once(tmp_path):
    app = write_app(tmp_path / "app")  # its x is 1.0
    sweep(app, "hydra.sweeper.n_trials=2")
    sweep(app, "hydra.sweeper.n_trials=3")
    assert [value == 1.0 for value in values_of(app)] == [True, False, False]


def test_a_dry_run_names_it(tmp_path):
    shown = sweep(write_app(tmp_path / "app"), "hydra.sweeper.dry_run=true")
    assert "trial 0, the default" in shown


@pytest.mark.parametrize("override", ["hydra.sweeper.enqueue_default=false", "hydra.sweeper.trials_file=list.json"])
def test_switched_off_or_beside_a_list_it_is_not_tried(tmp_path, override):
    app = write_app(tmp_path / "app")
    (app / "list.json").write_text('[{"x": 0.25}]')
    sweep(app, "hydra.sweeper.n_trials=2", override)
    assert 1.0 not in values_of(app)
