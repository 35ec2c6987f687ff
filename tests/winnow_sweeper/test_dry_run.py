"""What would run is composed and validated, and its cost told; on this repository's config."""

import optuna
import pytest
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._dry_run import dry_run
from hydra_plugins.winnow_sweeper._trials_file import ExplicitTrial
from winnow.config.schema import RunSettings
from winnow.settings import build_settings


@pytest.fixture(scope="module")
def compose():
    return composer()


def plan(compose, space, explicit=(), n_trials=8, **more):
    return dry_run(
        space, explicit, optuna.samplers.RandomSampler(seed=0), ["maximize"], n_trials, more.pop("num_seeds", 1), compose,
        lambda config: build_settings(RunSettings, config, ""), **more,
    )  # fmt: skip


def test_the_dearest_trial_tells_the_worst_cost(compose):
    space = space_of("budget=search", "training.subset_size=200", training__max_epochs="choice(2,30)")
    planned = plan(compose, space, num_seeds=3)
    assert planned.errors == []
    assert (planned.num_runs, planned.epochs, planned.images) == (24, 720, 720 * 200)


def test_explicit_trials_come_first_with_their_own_overrides(compose):
    explicit = [ExplicitTrial({"training.batch_size": 3}, ("training.max_epochs=50",), 2), ExplicitTrial({}, (), 5)]
    space = space_of(training__batch_size="int(interval(2,4))", training__optimizer__lr="interval(0.1,0.2)")
    rows = plan(compose, space, explicit, num_sampled=2).rows
    assert [row.what for row in rows] == ["trial 0 (line 2)", "trial 1 (line 5)", "trial 2", "trial 3"]
    assert rows[0].overrides[0] == "training.batch_size=3"
    assert rows[0].overrides[2] == "training.max_epochs=50"
    assert rows[0].epochs == 50


def test_a_choice_that_can_not_run_is_found_even_if_no_trial_draws_it(compose):
    space = space_of(model="choice(fcos_tiny,fcos_huge)", training__amp="choice(auto,fp8)")
    errors = plan(compose, space, n_trials=0).errors
    assert len(errors) == 2
    assert "choice: model=fcos_huge: " in errors[0]
    assert "choice: training.amp=fp8: training.amp='fp8'" in errors[1]


def test_parameters_of_custom_search_space_are_composed_too(compose):
    planned = plan(compose, space_of(), n_trials=1, extend=lambda trial: trial.suggest_int("training.max_epoch", 1, 3))
    assert "training.max_epoch" in planned.errors[0]
    planned = plan(compose, space_of(), n_trials=1, extend=lambda trial: trial.suggest_int("training.max_epochs", 3, 3))
    assert planned.epochs == 3


def test_a_cost_that_no_config_tells_is_unknown(tmp_path):
    (tmp_path / "config.yaml").write_text("x: 1\n")
    planned = dry_run(
        space_of(x="1,2"), (), optuna.samplers.RandomSampler(), ["minimize"], 4, 1, composer(tmp_path), lambda config: None
    )  # fmt: skip
    assert (planned.epochs, planned.images, planned.num_runs) == (None, None, 4)


def test_several_objectives_are_sampled(compose):
    planned = dry_run(
        space_of(training__batch_size="2,4"), (), optuna.samplers.NSGAIISampler(seed=0), ["maximize", "minimize"], 3, 1,
        compose, lambda config: None,
    )  # fmt: skip
    assert [row.what for row in planned.rows] == ["trial 0", "trial 1", "trial 2", "choice", "choice"]
