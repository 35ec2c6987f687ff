"""A continued study is refused or recorded when what it searches has changed."""

import json

import pytest
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._definition import Definition, accepted_changes, flattened
from winnow.config.moved import ADDED
from winnow.errors import ConfigError


def definition(*overrides, params=None, **changes):
    space = space_of(**(params or {"training__optimizer__lr": "tag(log,interval(1e-5,1e-2))", "x": "choice(a,b)"}))
    given = {
        "directions": ["maximize"],
        "pruner": {"name": "median", "floor": 0.1},
        "seeds": None,
        "custom_search_space": None,
    }
    return Definition.of(space, composer()(overrides), **(given | changes))


@pytest.fixture(scope="module")
def old():
    return definition()


@pytest.mark.parametrize(("overrides", "changes", "line"), [
    (["training.max_epochs=20"], {}, "training.max_epochs: 12 in the study, 20 now"),
    (["+training.more=1"], {}, "training.more: absent in the study, 1 now"),
    (["~training.compile"], {}, "training.compile: false in the study, absent now"),
    (["training.freeze=[a]"], {}, 'training.freeze: [] in the study, ["a"] now'),
    ([], {"pruner": {"name": "median", "floor": 0.2}}, "hydra.sweeper.pruner.floor: 0.1 in the study, 0.2 now"),
    ([], {"seeds": [0, 1]}, "hydra.sweeper.seeds: null in the study, [0, 1] now"),
    ([], {"seeds": [0, 1], "repeat_over": "data.fold"}, 'hydra.sweeper.repeat_over: null in the study, "data.fold" now'),
    ([], {"custom_search_space": "mine.extend"}, 'hydra.sweeper.custom_search_space: null in the study, "mine.extend" now'),
    ([], {"params": {"training__optimizer__lr": "tag(log,interval(1e-4,1e-2))", "x": "a,b"}},
     "search space: training.optimizer.lr was log(1e-05, 0.01), is log(0.0001, 0.01)"),
    ([], {"params": {"training__optimizer__lr": "tag(log,interval(1e-5,1e-2))"}},
     "search space: x was choice(a, b), is no longer searched"),
    ([], {"params": {"training__optimizer__lr": "tag(log,interval(1e-5,1e-2))", "x": "a,b", "z": "range(3)"}},
     "search space: z is new, int(0, 2)"),
])  # fmt: skip
def test_a_change_is_refused_in_words_or_accepted_and_given_back(old, overrides, changes, line):
    new = definition(*overrides, **changes)
    with pytest.raises(ConfigError) as error:
        accepted_changes(old, new, accept_changes=False)
    assert line in str(error.value)
    assert "hydra.sweeper.accept_changes=true" in str(error.value)
    assert line in accepted_changes(old, new, accept_changes=True)


@pytest.mark.parametrize("override", [
    "tracking=off", "training.num_workers=7", "training.device=cpu", "data.root=elsewhere", "training.resume=auto",
    "training.log_interval=1", "training.optimizer.lr=0.5", "trusted_targets=[mine]",
])  # fmt: skip
def test_where_it_runs_and_what_is_searched_may_change(old, override):
    assert accepted_changes(old, definition(override), accept_changes=False) == []


@pytest.mark.parametrize(("changes", "line"), [
    ({"params": {"x": "choice(a,c)"}}, "x: Optuna can't go on from choice(a, b) with choice(a, c)"),
    ({"params": {"training__optimizer__lr": "interval(0,1)"}}, "training.optimizer.lr: Optuna can't go on from log(1e-05, 0.01)"),
    ({"params": {"training__optimizer__lr": "range(1,4)"}}, "training.optimizer.lr: Optuna can't go on"),
    ({"directions": ["minimize"]}, "hydra.sweeper.direction: Optuna keeps the direction"),
])  # fmt: skip
def test_what_optuna_can_not_take_is_refused_even_if_accepted(old, changes, line):
    with pytest.raises(ConfigError) as error:
        accepted_changes(old, definition(**changes), accept_changes=True)
    assert line in str(error.value)
    assert "hydra.sweeper.fresh=true" in str(error.value)


def test_a_definition_survives_as_json(old):
    again = Definition.from_json(definition(seeds=[0, 1]).to_json())
    assert again == definition(seeds=[0, 1])
    assert accepted_changes(Definition.from_json(old.to_json()), old, accept_changes=False) == []
    assert again.plain()["search_space"] == {"training.optimizer.lr": "log(1e-05, 0.01)", "x": "choice(a, b)"}


def test_with_several_seeds_the_configs_own_is_left_out():
    assert "training.seed" not in definition(seeds=[0]).base
    over_sizes = definition(seeds=[64, 96], repeat_over="data.image_size")
    assert "data.image_size" not in over_sizes.base
    assert "training.seed" in over_sizes.base
    assert over_sizes.differences(definition("data.image_size=32", seeds=[64, 96], repeat_over="data.image_size")) == []


def test_a_definition_of_before_repeats_over_seeds():
    text = json.loads(definition(seeds=[0, 1]).to_json())
    assert text.pop("repeat_over") is None
    assert Definition.from_json(json.dumps(text)) == definition(seeds=[0, 1])
    assert "training.seed" in definition().base


def test_each_change_is_told_once(old):
    new = definition("training.max_epochs=20", params={"x": "choice(a,b)"}, seeds=[0, 1], pruner=None)
    assert old.differences(new) == [
        "search space: training.optimizer.lr was log(1e-05, 0.01), is no longer searched",
        'hydra.sweeper.pruner.name: "median" in the study, absent now',
        "hydra.sweeper.pruner.floor: 0.1 in the study, absent now",
        "hydra.sweeper.seeds: null in the study, [0, 1] now",
        "training.max_epochs: 12 in the study, 20 now",
    ]


def test_a_searched_group_is_left_out_whole():
    base = {"model": {"a": 1}, "training": {"optimizer": {"lr": 1}, "x": {}}, "store": {"b": 2}}
    assert flattened(base, ["model", "training/optimizer", "db@store"]) == {"training.x": {}}


def test_keys_that_came_after_a_study_had_begun_change_nothing_of_it(old):
    recorded = json.loads(old.to_json())
    for key in ADDED:
        recorded["base"].pop(key, None)
    began = Definition.from_json(json.dumps(recorded))
    assert accepted_changes(began, definition(), accept_changes=False) == []
    assert began.differences(definition("training.no_decay=[norm]")) == [
        'training.no_decay: [] in the study, ["norm"] now'
    ]
