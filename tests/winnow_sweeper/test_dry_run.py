"""What would run is composed and validated, and its cost told; on this repository's config."""

from pathlib import Path

import optuna
import pytest
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._dry_run import dry_run
from hydra_plugins.winnow_sweeper._plan import ComposedRun
from hydra_plugins.winnow_sweeper._requirements import num_independent
from hydra_plugins.winnow_sweeper._trials_file import ExplicitTrial
from winnow.errors import ConfigError
from winnow.run.refusals import refusals


@pytest.fixture(scope="module")
def compose():
    return composed_by(composer())


def composed_by(plain_of):
    def compose(overrides):
        config = plain_of(overrides)
        return ComposedRun(config, ((config, {}),))

    return compose


def refused(runs):
    return refusals([(run.config, run.parts) for run in runs], Path("nowhere"), None, ["maximize"], False)


def begun(runs):
    return [None] * len(runs)


def plan(compose, space, explicit=(), n_trials=8, **more):
    return dry_run(
        space, explicit, optuna.samplers.RandomSampler(seed=0), ["maximize"], n_trials, more.pop("num_seeds", 1), compose,
        refused, **more,
    )  # fmt: skip


def test_the_dearest_trial_tells_the_worst_cost(compose):
    space = space_of("budget=search", "training.subset_size=200", training__max_epochs="choice(2,30)")
    planned = plan(compose, space, num_seeds=3)
    assert planned.errors == []
    assert (planned.num_runs, planned.epochs, planned.images) == (24, 720, 720 * 200)


def test_explicit_trials_come_first_with_their_own_overrides(compose):
    explicit = [ExplicitTrial({"training.batch_size": 3}, ("training.max_epochs=50",), 2), ExplicitTrial({}, (), 5)]
    space = space_of(training__batch_size="int(interval(2,4))", training__optimizer__lr="interval(0.1,0.2)")
    rows = plan(compose, space, explicit, num_sampled=2, num_certain=3).rows[:4]
    assert [row.what for row in rows] == ["trial 0 (line 2)", "trial 1 (line 5)", "trial 2", "example"]
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
        space_of(x="1,2"), (), optuna.samplers.RandomSampler(), ["minimize"], 4, 1, composed_by(composer(tmp_path)), begun
    )  # fmt: skip
    assert (planned.epochs, planned.images, planned.num_runs) == (None, None, 4)


def test_several_objectives_are_sampled(compose):
    planned = dry_run(
        space_of(training__batch_size="2,4"), (), optuna.samplers.NSGAIISampler(seed=0), ["maximize", "minimize"], 3, 1,
        compose, begun, num_certain=2,
    )  # fmt: skip
    assert [row.what for row in planned.rows] == ["trial 0", "trial 1", "example", "choice", "choice"]


@pytest.mark.parametrize(("key", "values", "message"), [
    ("model.head_convs", "choice(abc,1)", "choice: model.head_convs=abc: model.head_convs='abc': input should be a valid"),
    ("model.head_channels", "range(32,65,16)", "value: model.head_channels=48: model.head_channels=48: "),
    ("model.head_channels", "int(interval(64,70000))", "bound: model.head_channels=70000: "),
    ("evaluation.score_threshold", "interval(0.0,1.5)", "bound: evaluation.score_threshold=1.5: "),
    ("data.size", "choice(128,abc)", "choice: data.size=abc: data.size='abc': input should be a valid integer"),
    ("model", "choice(fcos_tiny,inktrace)", "choice: model=inktrace: model, data and evaluation must be of one family"),
    ("training.optimizer.lr", "choice(0.1,-1.0)", "choice: training.optimizer.lr=-1.0: "),
    ("training.optimizer.betas", "choice([0.9,0.99],[2,3])", "choice: training.optimizer.betas=[2,3]: training.optimizer is"),
    ("objective.metric", "choice(val/map,val/mapp)", "choice: objective.metric=val/mapp: objective.metric: 'val/mapp' is not a"),
    ("training.init_from", "choice(null,none.pth)", "choice: training.init_from=none.pth: "),
])  # fmt: skip
def test_each_value_is_held_against_what_a_run_checks_at_its_start(compose, key, values, message):
    prefix = "+" if key.endswith("betas") else ""
    space = space_of(**{f"{prefix}{key}".replace(".", "__"): values})
    errors = plan(compose, space, n_trials=0).errors
    assert len(errors) == 1
    assert message in errors[0].replace("+", "")


def test_values_that_only_fit_beside_others_are_no_errors_where_these_are_listed(compose):
    space = space_of(model="choice(fcos_tiny,inktrace)", data="choice(digits,ink_strokes)")
    fitting = [{"model": "fcos_tiny", "data": "digits"}, {"model": "inktrace", "data": "ink_strokes"}]
    explicit = [ExplicitTrial(params, (), line) for line, params in enumerate(fitting)]
    assert plan(compose, space, explicit, num_sampled=0).errors == []
    assert "choice: data=ink_strokes: " in plan(compose, space, explicit[:1], num_sampled=0).errors[1]


def test_the_same_error_is_told_once(compose):
    (error,) = plan(compose, space_of("model.head_convs=abc", training__batch_size="choice(1,2)")).errors
    assert error.startswith("example: training.batch_size=")
    assert error.endswith("(and so 6 more)")


def test_a_sampler_that_cannot_propose_is_an_error_of_its_own(compose):
    with pytest.raises(ConfigError, match="hydra.sweeper.sampler: TPESampler can't propose a trial: "):
        dry_run(
            space_of(x="1,2"), (), optuna.samplers.TPESampler(n_startup_trials="2"), ["minimize"], 4, 1, compose, begun
        )  # fmt: skip


@pytest.mark.parametrize(("node", "num"), [
    ({"_target_": "optuna.samplers.TPESampler", "seed": 0, "n_startup_trials": 8}, 8),
    ({"_target_": "optuna.samplers.TPESampler", "seed": None, "n_startup_trials": 8}, 0),
    ({"_target_": "optuna.samplers.RandomSampler", "seed": 0}, 20), ({"_target_": "optuna.samplers.GridSampler", "seed": 0}, 20),
    ({"_target_": "optuna.samplers.QMCSampler", "seed": 0}, 1),
    ({"_target_": "hydra_plugins.x.create_nsgaii_sampler", "seed": 0, "population_size": 50}, 20),
])  # fmt: skip
def test_what_a_sampler_draws_without_results_is_known(node, num):
    assert num_independent(node, 20) == num
