"""From hydra.sweeper.params and the command line to distributions, and from a trial back to overrides."""

from types import SimpleNamespace

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._distribution import allowed
from hydra_plugins.winnow_sweeper._space import SearchSpace
from hydra_plugins.winnow_sweeper._sweep import job_overrides
from winnow.errors import ConfigError


@pytest.mark.parametrize(("text", "distribution", "words"), [
    ("interval(0,1)", Float(0, 1), "interval(0.0, 1.0)"),
    ("int(interval(1,8))", Int(1, 8), "int(1, 8)"),
    ("tag(log,interval(1e-5,1e-2))", Float(1e-5, 1e-2, log=True), "log(1e-05, 0.01)"),
    ("tag(log,int(interval(1,64)))", Int(1, 64, log=True), "int log(1, 64)"),
    ("int(tag(log,interval(1,64)))", Int(1, 64, log=True), "int log(1, 64)"),
    ("range(1,5)", Int(1, 4), "int(1, 4)"),
    ("range(2,9,2)", Int(2, 8, step=2), "int range(2, 8, step 2)"),
    ("range(0,0.3,0.1)", Float(0, 0.2, step=0.1), "range(0.0, 0.2, step 0.1)"),
    ("shuffle(range(1,5))", Int(1, 4), "int(1, 4)"),
    ("choice(a,b)", Choice(["a", "b"]), "choice(a, b)"),
    ("a,b", Choice(["a", "b"]), "choice(a, b)"),
    ("choice(1,0.5,true)", Choice([1, 0.5, "true"]), "choice(1, 0.5, true)"),
    ("choice(null,off)", Choice(["null", "off"]), "choice(null, off)"),
    ("sort(choice(3,1,2))", Choice([1, 2, 3]), "choice(1, 2, 3)"),
    ("shuffle(choice(3,1,2))", Choice([3, 1, 2]), "choice(3, 1, 2)"),
    ("choice([1,2],{a: x})", Choice(["[1,2]", "{a:x}"]), "choice([1,2], {a:x})"),
    ("choice('a=b','1','[1,2]',[1,2])", Choice(["'a=b'", "'1'", "'[1,2]'", "[1,2]"]), "choice('a=b', '1', '[1,2]', [1,2])"),
])  # fmt: skip
def test_a_sweep_becomes_a_distribution(text, distribution, words):
    for space in (space_of(key=text), space_of(*([] if "null" in text else [f"key={text}"]), key=text)):
        assert space.distributions == {"key": distribution}
        assert allowed(space.distributions["key"]) == words


@pytest.mark.parametrize("line", [
    "x=choice(a,b)", "x=a,b,null", "x=2,2.5,true", "x=choice([1,2],[3])", "x='a b','c d'", "x=choice({a:1},{a:2})",
    "x=data/x.pt,b", "x=interval(1,2)", "x=range(1,9,2)", "x=range(0.0,1.0,0.25)", "x=tag(log,interval(1,10))",
    "x=float(range(1,4))", "model=choice(m1,m2)", "+x=choice(1,2)", "++x=choice(1,2)", "x=\"it's\",b",
])  # fmt: skip
def test_a_study_of_the_released_sweeper_continues(line):
    upstream, _, _ = create_params_from_overrides([line])
    assert SearchSpace.parse({}, [line]).distributions == upstream


@pytest.mark.parametrize(("text", "message"), [
    ("choice()", "empty choice"),
    ("choice(1,2,1)", "the choice 1 is given twice"),
    ("choice(a,'a')", "the choice a is given twice"),
    ("choice([1,a],[1,'a'])", "is given twice"),
    ("interval(2,1)", "the lower bound 2.0 is above the upper bound 1.0"),
    ("interval(0,inf)", "must be finite, got 0.0 and inf"),
    ("tag(log,interval(0,1))", "must be above 0, got 0.0"),
    ("tag(log,choice(1,2))", "the tag log is for intervals"),
    ("tag(fast,interval(0,1))", "unknown tag 'fast'; allowed: log"),
    ("range(1,1)", "must contain at least one value"),
    ("range(1,5,0)", "requires a nonzero step"),
    ("int(range(0.0,2.0,0.5))", "the choice 0 is given twice"),
    ("glob(*)", "glob(...) can't be searched; list the choices"),
    ("interval(1", "allowed: choice(a, b), range(1, 9)"),
    ("normal(0,1)", "Unknown function 'normal'"),
    ("[choice(1,2),3]", "a sweep can't stand inside a value"),
    ("choice(range(1,3),7)", "a sweep can't stand inside a value"),
    ({"lr": "choice(1,2)"}, "params are flat"),
    (["range(1,3)"], "params are flat"),
])  # fmt: skip
def test_a_wrong_entry_is_named_with_its_key_and_value(text, message):
    with pytest.raises(ConfigError) as error:
        space_of(model__depth=text)
    assert f"hydra.sweeper.params.model.depth={text}" in str(error.value)
    assert message in str(error.value)


def test_all_wrong_entries_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        space_of("c=interval(3,1)", "~d=choice(1,2)", a="choice(1,1)", b="interval(2,1)")
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert "the argument 'c=interval(3,1)'" in str(error.value)
    assert "the argument '~d=choice(1,2)': a deletion can't be searched" in str(error.value)


@pytest.mark.parametrize(("params", "arguments", "searched", "fixed"), [
    ({"x": "choice(1,2)", "y": "3"}, [], ["x"], ("y=3",)),
    ({"x": "choice(1,2)"}, ["x=5"], [], ("x=5",)),
    ({"x": "5"}, ["x=choice(1,2)"], ["x"], ()),
    ({"x": "choice(1,2)"}, ["x=interval(0,1)"], ["x"], ()),
    ({"+x": "choice(1,2)"}, ["++x=5"], [], ("++x=5",)),
    ({"x": "choice(1,2)"}, ["~x"], [], ("~x",)),
    ({}, ["~x", "+x=choice(1,2)"], ["+x"], ("~x",)),
    ({"~x": None, "y": None, "z": 0.5, "w": [1, "a b"], "v": ""}, [], [], ("~x", "y=null", "z=0.5", "w=[1,a b]", "v=")),
    ({}, ["x=1", "+sweep=lr_bs", "x=2"], [], ("x=1", "+sweep=lr_bs", "x=2")),
])  # fmt: skip
def test_the_command_line_wins(params, arguments, searched, fixed):
    space = SearchSpace.parse(params, arguments)
    assert list(space.distributions) == searched
    assert space.fixed_overrides == fixed


def test_a_key_is_not_both_fixed_and_searched():
    with pytest.raises(ConfigError, match=r"x is searched and also fixed by \+x=3; give one of the two"):
        space_of("x=choice(1,2)", "+x=3")


def test_params_may_be_a_config_with_interpolations():
    params = OmegaConf.create({"top": 4, "params": {"x": "int(interval(1,${top}))"}}).params
    assert SearchSpace.parse(params, []).distributions == {"x": Int(1, 4)}


def test_no_params_is_an_empty_space():
    assert SearchSpace.parse(None, []) == SearchSpace({})


def test_a_trial_of_this_repositorys_config_is_composed_with_its_values():
    params = {
        "model": "choice(fcos_tiny,deformable_detr_tiny)",
        "training/optimizer": "choice(adamw,sgd)",
        "training.optimizer.lr": "tag(log,interval(1e-5,1e-2))",
        "training.batch_size": "int(interval(2,8))",
        "training.ema.decay": "choice(null,0.99)",
        "training.freeze": "choice([],['a=b, \"c\"',x])",
        "+training.extra": "choice({k: [1,null]},'{k:1}')",
    }
    space = SearchSpace.parse(params, ["~tracking.tags", "training.num_workers=0"])
    study, compose = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)), composer()
    for _ in range(6):
        trial = study.ask(fixed_distributions=space.distributions)
        values = space.values(trial.params)
        config = compose((*space.fixed_overrides, *space.overrides(trial.params)))
        targets = {"model": config["model"], "training/optimizer": config["training"]["optimizer"]}
        for key in ("model", "training/optimizer"):
            assert targets[key]["_target_"].lower().endswith(values.pop(key))
        assert {key: OmegaConf.select(OmegaConf.create(config), key) for key in values} == values
        assert "tags" not in config["tracking"]


def test_a_study_reopened_in_a_file_gives_the_same_overrides(tmp_path):
    space = space_of(x="choice([1,2],'[1,2]',null,'null',true,'true',1,1.0,'1')")
    storage = f"sqlite:///{tmp_path}/study.db"
    grid = {"x": space.distributions["x"].choices}
    study = optuna.create_study(storage=storage, study_name="s", sampler=optuna.samplers.GridSampler(grid))
    wanted = {space.overrides(study.ask(fixed_distributions=space.distributions).params) for _ in range(9)}
    reopened = optuna.load_study(storage=storage, study_name="s")
    assert {space.overrides(trial.params) for trial in reopened.get_trials()} == wanted
    assert len(wanted) == 9


@pytest.mark.parametrize(("text", "value"), [("[16,32]", [16, 32]), ("1", 1), ("relu", "relu"), ("a,b=c", "a,b=c")])
def test_text_that_custom_search_space_adds_is_read_by_hydra_where_it_can_be(text, value):
    (line,) = space_of(x="choice(1,2)").overrides({"more": text})
    assert OverridesParser.create().parse_override(line).value() == value


@pytest.mark.parametrize("value", [0.5, 3, True, None, "relu", "a,b=c", [1, 2], (1, 2), {"a": "b c"}])
def test_what_custom_search_space_adds_is_written_by_value(value):
    (line,) = space_of(x="choice(1,2)").overrides({"+model.more": value})
    override = OverridesParser.create().parse_override(line)
    assert override.get_key_element() == "+model.more"
    assert override.value() == (list(value) if isinstance(value, tuple) else value)


def test_conditional_parameters_reach_the_overrides():
    space = space_of(x="choice(a,b)")
    trial = optuna.create_study().ask(fixed_distributions=space.distributions)
    trial.suggest_categorical("+act", ["re lu"])
    trial.suggest_int("depth", 3, 3)
    assert space.overrides(trial.params)[1:] == ("+act=re lu", "depth=3")


def test_what_is_fixed_can_not_be_suggested_too():
    with pytest.raises(ConfigError, match=r"\+y is suggested by custom_search_space and also fixed"):
        space_of("y=3").overrides({"+y": 4})


def test_choices_that_optuna_takes_for_one_are_told_apart():
    assert space_of(x="choice(1,true,1.0)").distributions == {"x": Choice([1, "true", "1.0"])}


def test_other_quotes_do_not_make_another_parameter():
    study = {"x": Choice(["'a b'", "c"]), "y": Choice(["a", "b"])}
    space = space_of(x='choice("a b",c)', y="choice(b,a)").matching(study)
    assert space.distributions == {"x": Choice(["'a b'", "c"]), "y": Choice(["b", "a"])}


def test_a_grid_of_an_interval_is_refused():
    with pytest.raises(ConfigError, match=r"x: interval\(0.0, 1.0\) has no end of values"):
        space_of(x="interval(0,1)").require_grid()


def test_a_parameter_that_only_a_study_knows_can_not_say_what_is_executed():
    plan = SimpleNamespace(space=space_of(training__optimizer__lr="interval(0,1)"), name="s")
    assert job_overrides(plan, {"training.optimizer.lr": 0.5, "training.seed": 3})[-1] == "training.seed=3"
    for name in ("trusted_targets", "+hydra.callbacks.x._target_"):
        with pytest.raises(ConfigError, match="a trial of the study 's' holds"):
            job_overrides(plan, {name: "os.system"})
