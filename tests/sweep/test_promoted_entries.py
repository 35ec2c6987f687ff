"""The list of full trainings keeps each value's type, and knows its trainings by what they are."""

import json

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from rich.console import Console
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._trials_file import read_trials
from winnow.config.values import parse_value, stored_choices
from winnow.errors import ConfigError
from winnow.odds.winner import Expected
from winnow.sweep.listed import enqueue_listed
from winnow.sweep.outcome import OUTCOME, OVERRIDES, Outcome
from winnow.sweep.promoted_entries import as_entry, content_of_entry, entry_of, list_text, texts_of
from winnow.sweep.promotion import (
    LIST,
    Promoted,
    Promotion,
    PromotionError,
    best_configurations,
    compared,
    promote,
    promotion_folder,
    promotion_table,
    run_folder,
    tell_choice,
)
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
    assert promotion_folder(study, ["budget=full"]) == promotion_folder(study, ("budget=full",)) == first
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


PROGRAM = """
import json, pathlib, sys

words = sys.argv[1:]
if "--multirun" in words:
    pathlib.Path("told.json").write_text(json.dumps(words))
    (folder,) = (word.partition("=")[2] for word in words if word.startswith("hydra.sweep.dir="))
    pathlib.Path(folder, "0").mkdir(exist_ok=True)
    sys.exit(3)
config = {"training": {"max_epochs": 2, "lr": 0.1, "resume": None}, "tracking": {"uri": "x"}, "budget": {"name": "short"}}
for key, equals, value in (word.partition("=") for word in words if "=" in word):
    *groups, last = key.split(".")
    node = config
    for group in groups:
        node = node.setdefault(group, {})
    node[last] = {"full": {"name": "full"}}.get(value, value if not value.replace(".", "").isdigit() else json.loads(value))
print(json.dumps(config))
"""


@pytest.fixture
def program(tmp_path):
    """Return a program that composes as train.py does, of a few keys; where it is to sweep it notes what it was told, begins the
    first trial's folder and fails."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def run_of(folder, said=(), **config):
    """Write what a run of the search leaves."""
    for name in ("checkpoints", ".hydra"):
        (folder / name).mkdir(parents=True)
    (folder / "checkpoints/last.pth").touch()
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(said)))
    training = {"max_epochs": 2, "lr": 0.1, "resume": None} | config
    whole = {"training": training, "tracking": {"uri": "y"}, "budget": {"name": "short"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(whole))
    return folder


def test_where_only_the_length_differs_a_training_goes_on_from_its_checkpoint(study, tmp_path, program, caplog):
    trial = searched(study, {"training.lr": 0.3})
    said = ["training.lr=0.3", "training.resume=/elsewhere.pth", "tracking.uri=z", "trusted_targets=[mine]"]
    run = run_of(tmp_path / "0", said, lr=0.3)
    with caplog.at_level("INFO"):
        entry = entry_of(trial, run, ["budget=full", "training.max_epochs=4"], [], [str(program)])
    last = str(run / "checkpoints/last.pth")
    assert entry == {"training.lr": "0.3", "training.max_epochs": "4", "training.resume": last}
    assert f"trial 0 goes on from {last}" in caplog.text


@pytest.mark.parametrize(("said", "config"), [
    (["training.lr=0.3"], {"lr": 0.1}), (["training.lr=0.3", "training.warm=1"], {"lr": 0.3}),
])  # fmt: skip
def test_where_more_differs_a_training_begins_afresh(study, tmp_path, program, caplog, said, config):
    trial = searched(study, {"training.lr": 0.3})
    with caplog.at_level("INFO"):
        entry = entry_of(trial, run_of(tmp_path / "0", said, **config), ["budget=full"], [], [str(program)])
    assert entry == {"training.lr": "0.3", "budget": "full"}
    assert "trial 0 starts afresh, for more than its length changes: training." in caplog.text


def test_without_a_checkpoint_or_of_a_pipeline_a_training_begins_afresh(study, tmp_path, program, caplog):
    trial = searched(study, {"training.lr": 0.3})
    run = run_of(tmp_path / "0", ["training.lr=0.3"], lr=0.3)
    (run / "pipeline.yaml").touch()
    assert entry_of(trial, run, ["budget=full"], [], [str(program)]) == {"training.lr": "0.3", "budget": "full"}
    for name in ("pipeline.yaml", "checkpoints/last.pth"):
        (run / name).unlink()
    assert entry_of(trial, run, ["budget=full"], [], [str(program)]) == {"training.lr": "0.3", "budget": "full"}
    assert "trial 0 is a pipeline: all of its stages are trained from the beginning" in caplog.text


def test_a_damaged_list_of_overrides_is_named(study, tmp_path, program):
    run = run_of(tmp_path / "0", ["training.lr=0.3"], lr=0.3)
    for damaged in ("a: 1", "[1]"):
        (run / ".hydra/overrides.yaml").write_text(damaged)
        with pytest.raises(ConfigError, match=r"overrides.yaml is damaged: it must be a list of overrides"):
            entry_of(searched(study), run, [], [], [str(program)])


def test_a_promotion_is_a_sweep_over_its_list(study, tmp_path, program, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for lr, value in ((0.1, 0.3), (0.2, 0.5), (0.3, 0.4)):
        searched(study, {"training.lr": lr}, value)
    source = stored(tmp_path / "search", study)
    source.description.update(
        overrides=["data=digits", "training.lr=0.9"], hydra_overrides=["hydra/sweeper=winnow"], search_path=[]
    )
    source.description["definition"]["search_space"] = {"training.lr": {}}
    said = ["training.max_epochs=4", "hydra.sweeper.n_jobs=2", "tracking=off", "trusted_targets=[mine]"]
    with pytest.raises(PromotionError, match=f"ended with exit code 3; the same command goes on with {tmp_path}"):
        promote(source, 2, said, [str(program)])
    folder = tmp_path / "search-promoted"
    told = json.loads((tmp_path / "told.json").read_text())
    assert told[:5] == [
        "--multirun", "hydra/sweeper=winnow", "data=digits", "trusted_targets=[mine]", f"hydra.sweep.dir={folder}",
    ]  # fmt: skip
    assert told[-2:] == ["hydra.sweeper.n_jobs=2", "tracking=off"]
    assert set(told[5:-2]) == {
        "hydra.sweeper.study_name=search-promoted", "hydra.sweeper.n_trials=2", f"hydra.sweeper.trials_file={folder / LIST}",
        "hydra.sweeper.accept_changes=true", "hydra.sweeper.direction=[maximize]", "hydra.sweeper.pruner=null",
        "hydra.sweeper.params=null", "hydra.sweeper.seeds=null", "hydra.sweeper.repeat_over=null",
        "hydra.sweeper.custom_search_space=null", "hydra.sweeper.timeout=null", "hydra.sweeper.max_cost=null",
    }  # fmt: skip
    assert (folder / "promoted.csv").read_text().split() == [
        "training.lr,budget,training.max_epochs", "0.2,full,4", "0.3,full,4",
    ]  # fmt: skip
    assert json.loads((folder / "promotion.json").read_text()) == {
        "overrides": ["budget=full", "training.max_epochs=4"],
        "by": None,
    }
    with pytest.raises(PromotionError):
        promote(source, 1, said, [str(program)])  # the same again: in the same folder
    assert not (tmp_path / "search-promoted-2").exists()
    with pytest.raises(PromotionError):
        promote(source, 1, ["budget=short"], [str(program)])
    assert (tmp_path / "search-promoted-2/promoted.csv").read_text().split() == ["training.lr,budget", "0.2,short"]


def test_a_study_without_a_completed_trial_promotes_nothing(study, tmp_path, program):
    source = stored(tmp_path / "search", study)
    source.description.update(overrides=[], hydra_overrides=[], search_path=[])
    with pytest.raises(ConfigError, match="has no completed trial to promote"):
        promote(source, 2, [], [str(program)])


def test_full_trainings_that_failed_have_no_value_and_three_tell_how_they_were_ranked(study, tmp_path):
    full = optuna.create_study(direction="maximize")
    entries = []
    for number, value in enumerate((0.1, 0.2, 0.3, 0.4)):
        entries.append(texts_of(searched(study, {"training.optimizer.lr": (number + 1) / 10}, value)))
    enqueue_listed(full, [({}, [f"{key}={text}" for key, text in entry.items()]) for entry in entries])
    values = {"0.1": 0.5, "0.2": 0.7, "0.3": 0.6}
    for trial in [full.ask() for _ in entries]:
        (override,) = trial.user_attrs[OVERRIDES]
        value = values.get(override.partition("=")[2])
        full.tell(trial, value, state=None if value else optuna.trial.TrialState.FAIL)
    best = best_configurations(stored(tmp_path, study), 4)
    entries = entries[::-1]
    promotion = compared(best, entries, stored(tmp_path, full))
    assert [(run.number, run.search, run.full, run.status) for run in promotion.runs] == [
        (3, 0.4, None, "failed"), (2, 0.3, 0.6, "completed"), (1, 0.2, 0.7, "completed"), (0, 0.1, 0.5, "completed"),
    ]  # fmt: skip
    assert promotion.rank_correlation == pytest.approx(0.5)
    assert not promotion.is_whole
    assert compared(best[2:], entries[2:], stored(tmp_path, full)).rank_correlation is None


def test_trainings_that_are_all_worth_the_same_rank_nothing(study, tmp_path):
    full = optuna.create_study(direction="maximize")
    entries = [texts_of(searched(study, {"training.optimizer.lr": value}, value)) for value in (0.3, 0.2, 0.1)]
    enqueue_listed(full, [({}, [f"{key}={text}" for key, text in entry.items()]) for entry in entries])
    for trial in [full.ask() for _ in entries]:
        full.tell(trial, 0.5)
    promotion = compared(best_configurations(stored(tmp_path, study), 3), entries, stored(tmp_path, full))
    assert [run.full for run in promotion.runs] == [0.5] * 3
    assert promotion.rank_correlation is None


@pytest.mark.filterwarnings("ignore:.*set_metric_names is experimental")
def test_of_several_objectives_it_is_told_by_which_was_chosen_and_how_to_choose_by_the_others(tmp_path, caplog):
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    study.set_metric_names(["val/map", "val/loss", "seconds"])
    for values in ([0.5, 1.0, 3.0], [0.4, 0.9, 2.0]):
        study.add_trial(optuna.create_trial(values=values))
    source = stored(tmp_path, study)
    with caplog.at_level("INFO"):
        tell_choice(source, best_configurations(source, 1, 1), 1)
    words = "promoted: trials 1, the best by val/loss; for the best by another objective: --by val/map or seconds"
    assert words in caplog.messages


def test_the_table_of_a_promotion_shows_both_values():
    expected = Expected(0.24, 0.2, 0.28)
    runs = (Promoted(7, 0.25, 0.5, "completed", "/runs/0", expected), Promoted(3, 0.125, None, "failed", None))
    console = Console(width=120, record=True)
    console.print(promotion_table(Promotion("val/map", runs, 0.5)))
    lines = [line.split("│") for line in console.export_text().splitlines()]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines if len(line) > 3]
    luckless = "0.2400 (0.2000 to 0.2800)"
    assert cells == [["7", "0.2500", luckless, "0.5000", "completed", "/runs/0"], ["3", "0.1250", "", "", "failed", ""]]
    console.print(promotion_table(Promotion("val/map", runs, None)))
    shown = console.export_text()
    assert "none: too few trainings" in shown
    assert "val/map in the search" in shown
