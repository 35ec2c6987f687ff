"""The list of full trainings keeps each value's type, and knows its trainings by what they are."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._trials_file import read_trials
from winnow.config.values import parse_value, stored_choices
from winnow.errors import ConfigError
from winnow.sweep.listed import enqueue_listed
from winnow.sweep.outcome import OUTCOME, OVERRIDES, Outcome
from winnow.sweep.promoted_entries import as_entry, content_of_entry, list_text, texts_of
from winnow.sweep.promotion import best_configurations, compared, promotion_folder, run_folder
from winnow.sweep.stored_study import StoredStudy

VALUES = {
    "training.resize_schedule": [[0, 64], [1, 96]], "training.optimizer.betas": [0.9, 0.999], "training.clip_grad_norm": None,
    "training.deterministic": True, "training.amp": "off", "data.root": "1e-3", "training.freeze": ["a, b", "it's"],
    "+training.note": {"a": [1, "x"]}, "training.optimizer.lr": 1e-4, "training.max_epochs": 3,
}  # fmt: skip


def searched(study, values=VALUES, value=0.5, **attrs):
    """Return a completed trial of a search over choices of these values."""
    choices = {name: stored_choices([item]) for name, item in values.items()}
    trial = optuna.create_trial(
        params={name: choice[0] for name, choice in choices.items()}, value=value, user_attrs=attrs,
        distributions={name: CategoricalDistribution(choice) for name, choice in choices.items()},
    )  # fmt: skip
    study.add_trial(trial)
    return study.trials[-1]


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


def stored(folder, study):
    definition = {"base": {}, "search_space": {}, "directions": ["maximize"], "pruner": None}
    return StoredStudy(folder, {"study_name": "search", "definition": definition, "metric": "val/map"}, study)


def test_every_value_keeps_its_type(study, tmp_path):
    path = tmp_path / "promoted.csv"
    path.write_text(list_text([texts_of(searched(study)), {"training.seed": "3"}]))
    first, second = read_trials(path, space_of(), lambda overrides: None)
    found = dict(text.split("=", 1) for text in first.overrides)
    assert {key: parse_value(text) for key, text in found.items()} == VALUES
    assert second.overrides == ("training.seed=3",)


def test_what_is_written_is_what_hydra_composes(study, tmp_path):
    path = tmp_path / "promoted.csv"
    known = {key: value for key, value in VALUES.items() if key != "data.root"}
    path.write_text(list_text([texts_of(searched(study, known))]))
    composed = []
    read_trials(path, space_of(), lambda overrides: composed.append(composer()(overrides)))
    training = composed[0]["training"]
    assert training["resize_schedule"] == [[0, 64], [1, 96]]
    assert (training["deterministic"], training["clip_grad_norm"], training["note"]) == (True, None, {"a": [1, "x"]})


def test_overrides_of_its_own_keep_their_prefix(study):
    trial = searched(study, {"training.seed": 1}, **{OVERRIDES: ["+training.note=x", "training.amp='off'"]})
    assert texts_of(trial) == {"training.seed": "1", "+training.note": "x", "training.amp": "'off'"}
    with pytest.raises(ConfigError, match="'~training.ema' gives no value"):
        as_entry(["~training.ema"])


def test_of_equal_configurations_the_best_is_promoted_once(study, tmp_path):
    for lr, value in ((0.1, 0.3), (0.1, 0.5), (0.2, 0.4), (0.3, 0.1)):
        trial = optuna.create_trial(params={"lr": lr}, distributions={"lr": FloatDistribution(0, 1)}, value=value)
        study.add_trial(trial)
    assert [row.number for row in best_configurations(stored(tmp_path, study), 3)] == [1, 2, 3]


def test_the_runs_of_a_moved_study_are_found(study, tmp_path):
    for name in ("0", "1/seed_3"):
        (tmp_path / name).mkdir(parents=True)
    for gone in ("/gone/study/0", "/gone/study/1/seed_3", "/gone/study/2"):
        searched(study, **{OUTCOME: Outcome("completed", (0.5,), run_folder=gone).to_json()})
    source = stored(tmp_path, study)
    found = [str(run_folder(source, row)) for row in source.rows()]
    assert found == [str(tmp_path / "0"), str(tmp_path / "1/seed_3"), "/gone/study/2"]


def test_a_promotion_with_other_overrides_is_a_study_of_its_own(tmp_path):
    study = tmp_path / "search"
    first = promotion_folder(study, ["budget=full"])
    assert first.name == "search-promoted"
    first.mkdir()
    (first / "promotion.json").write_text('{"overrides": ["budget=full"]}')
    assert promotion_folder(study, ["budget=full"]) == first
    second = promotion_folder(study, ["budget=full", "training.max_epochs=9"])
    assert second.name == "search-promoted-2"
    second.mkdir()
    assert (
        promotion_folder(study, ["budget=full", "training.max_epochs=9"]).name == "search-promoted-3"
    )  # not known as that


def test_values_are_those_of_the_same_configuration_after_the_search_went_on(study, tmp_path):
    """Trial 0 was promoted; then trial 1 was found, which is better."""
    old, new = ({"training.optimizer.lr": lr} for lr in (0.1, 0.2))
    searched(study, old, 0.4), searched(study, new, 0.6)
    full = optuna.create_study(direction="maximize")
    entries = [texts_of(trial) for trial in study.trials]
    enqueue_listed(full, [({}, [f"{key}={text}" for key, text in entries[0].items()])])
    full.tell(full.ask(), 0.5)
    enqueue_listed(full, [({}, [f"{key}={text}" for key, text in entry.items()]) for entry in reversed(entries)])
    source = stored(tmp_path, study)
    best = best_configurations(source, 2)
    by_number = {trial.number: texts_of(trial) for trial in study.trials}
    promotion = compared(best, [by_number[row.number] for row in best], stored(tmp_path, full))
    assert [(run.number, run.full, run.status) for run in promotion.runs] == [
        (1, None, "missing"),
        (0, 0.5, "completed"),
    ]
    assert not promotion.is_whole
    full.tell(full.ask(), 0.7)
    promotion = compared(best, [by_number[row.number] for row in best], stored(tmp_path, full))
    assert [run.full for run in promotion.runs] == [0.7, 0.5]
    assert promotion.is_whole


def test_the_order_of_keys_makes_no_other_training():
    assert content_of_entry({"a": "1", "b": "[1, 2]"}) == content_of_entry({"b": "[1,2]", "a": "1"})
    assert content_of_entry({"a": "1"}) != content_of_entry({"a": "'1'"})
