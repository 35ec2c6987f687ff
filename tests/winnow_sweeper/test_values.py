"""Any value, written as an override, is read by Hydra as the same value."""

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, distribution_to_json, json_to_distribution
from space_parts import composer

from hydra_plugins.winnow_sweeper._space import SearchSpace
from winnow.config.values import override_text, parse_value, read_choice, same, stored_choices

NASTY = st.sampled_from([
    "", " ", "a b", " a ", "a=b", "a,b", "'", '"', "'\"", "\\", "\\'", '\\\\"', "a\\", "$", "$x", "{a}", "[1,2]", "{a:1}",
    "null", "true", "1", "1.0", "1e-3", "nan", "-inf", "choice(1,2)", "range(3)", "a:b", "é ü 日本 🙂", "tab\there",
    "line\nbreak", "~x", "+x", "x/y.pt", "#",
])  # fmt: skip
TEXTS = NASTY | st.text(max_size=12) | st.text(alphabet="\\'\" ,=[]{}():$a1", max_size=8)
NUMBERS = st.booleans() | st.integers(-(10**20), 10**20) | st.floats()
# A dict's keys can't be quoted in Hydra.
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True).filter(
    lambda key: key.lower() not in ("null", "true", "false", "nan", "inf")
)
VALUES = st.recursive(
    st.none() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_an_override_is_read_by_hydra_as_the_value_it_was_written_for(value):
    override = OverridesParser.create().parse_override(f"some.key={override_text(value)}")
    assert not override.is_sweep_override()
    assert same(override.value(), value)


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=5))
def test_choices_come_back_from_a_storage_as_the_same_values(values):
    distinct = [value for i, value in enumerate(values) if not any(same(value, other) for other in values[:i])]
    space = SearchSpace.parse({"key": f"choice({','.join(map(override_text, distinct))})"}, [])
    choices = json_to_distribution(distribution_to_json(space.distributions["key"])).choices
    for choice, value in zip(choices, distinct, strict=True):
        (line,) = space.overrides({"key": choice})
        assert same(OverridesParser.create().parse_override(line).value(), value)
        assert same(space.values({"key": choice})["key"], value)
        assert same(space.stored("key", value), choice)


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=8))
def test_optuna_can_tell_all_choices_apart(values):
    distinct = [value for i, value in enumerate(values) if not any(same(value, other) for other in values[:i])]
    distribution = CategoricalDistribution(stored_choices(distinct))
    for index, choice in enumerate(distribution.choices):
        assert distribution.to_external_repr(distribution.to_internal_repr(choice)) is choice
        assert distribution.to_internal_repr(choice) == index


# OmegaConf itself gives ${…} and ??? a meaning, wherever a value comes from.
CONFIG_VALUES = VALUES.filter(lambda value: "${" not in repr(value) and "???" not in repr(value))


@settings(max_examples=25, deadline=None)
@given(st.lists(CONFIG_VALUES, min_size=1, max_size=4))
def test_a_job_is_composed_with_exactly_the_trials_values(bare_compose, values):
    names = [f"+searched.v{index}" for index in range(len(values))]
    params = {f"{name}": f"choice({override_text(value)})" for name, value in zip(names, values, strict=True)}
    space = SearchSpace.parse(params, [])
    trial = {name: distribution.choices[0] for name, distribution in space.distributions.items()}
    assert same(list(bare_compose(space.overrides(trial))["searched"].values()), values)


@pytest.fixture(scope="module")
def bare_compose(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    (folder / "config.yaml").write_text("a: 1\n")
    return composer(folder)


@pytest.mark.parametrize("value", [{"1": 2}, {"null": 1}, {"a'b": 1}, object(), {1, 2}])
def test_what_no_override_can_hold_is_refused(value):
    with pytest.raises(ValueError, match="can't be written as a Hydra override"):
        override_text(value)


@pytest.mark.parametrize(("text", "message"), [
    ("1,2", "is a sweep, not a value"), ("choice(1)", "is a sweep"),
    ("[a", "is not a Hydra value"), ("[choice(1,2)]", "a sweep can't stand"),
])  # fmt: skip
def test_a_value_is_one_value(text, message):
    with pytest.raises(ValueError, match=message):
        parse_value(text)


@pytest.mark.parametrize(("left", "right", "equal"), [
    (1, 1, True), (1, 1.0, False), (1, True, False), (math.nan, math.nan, True), ([1], [1.0], False),
    ({"a": 1}, {"a": True}, False), ({1: "a"}, {True: "a"}, False),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), ([1, 2], [2, 1], False), (None, "null", False),
])  # fmt: skip
def test_sameness_minds_types(left, right, equal):
    assert same(left, right) is equal


def test_a_stored_string_is_hydra_text():
    assert [read_choice(choice) for choice in ("[1,2]", "'[1,2]'", "null", "'null'", 3, True)] == [
        [1, 2], "[1,2]", None, "null", 3, True,
    ]  # fmt: skip
