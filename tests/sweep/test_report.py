"""What people see of a study: nothing learned is said, several objectives are told apart, everything bears its name."""

import csv
import io
import re

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from rich.console import Console
from studies import messages

from winnow.errors import ConfigError
from winnow.sweep.objectives import Objectives, pareto_front
from winnow.sweep.outcome import OUTCOME, Outcome
from winnow.sweep.promotion import best_configurations, promotion_folder, tell_choice
from winnow.sweep.report import StudyReport, ranking_table, study_lines
from winnow.sweep.stored_study import StoredStudy
from winnow.sweep.table import rows_of, why_nothing_was_learned
from winnow.tracking.null_tracker import NullTracker

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
LR = {"training.optimizer.lr": FloatDistribution(0, 1)}


def study_with(*values, names=("val/map",), directions=("maximize",)):
    """Return a study with a completed trial for each of ``values``; None is one that was pruned at 0.25."""
    study = optuna.create_study(directions=directions)
    study.set_metric_names(list(names))
    for place, own in enumerate(values):
        outcome = Outcome("pruned" if own is None else "completed", own or (), epochs=2)
        study.add_trial(create_trial(
            state=TrialState.PRUNED if own is None else TrialState.COMPLETE, values=own, distributions=LR,
            params={"training.optimizer.lr": place / 100}, intermediate_values={1: 0.0, 2: 0.25 if own is None else own[0]}
            if len(names) == 1 else None, user_attrs={OUTCOME: outcome.to_json()},
        ))  # fmt: skip
    return study


def stored(folder, study):
    definition = {"base": {}, "search_space": {}, "directions": [], "pruner": None}
    return StoredStudy(folder, {"study_name": "search", "definition": definition, "metric": "val/map"}, study)


def printed(*items):
    console = Console(width=200, file=io.StringIO())
    for item in items:
        console.print(item)
    return console.file.getvalue()


def concluded(study, folder, capsys, plots=False):
    """Return the report after its end, and what it printed."""
    report = StudyReport(
        study, folder, 9, "x", lambda row: None, lambda trial: False, NullTracker(folder), (), plots=plots
    )
    report.conclude("all trials are done", ())
    return report, capsys.readouterr().out


@pytest.mark.parametrize(("values", "learned"), [
    ([(0.0,), (0.0,)], False), ([(0.3,), (0.1 + 0.2,), (0.3,)], False), ([(0.0,), (0.0,), None], False),
    ([(0.0,)], True), ([(0.0,), (1e-9,)], True), ([(0.5,), (0.25,)], True), ([None, None], True), ([], True),
])  # fmt: skip
def test_equal_values_of_all_completed_trials_say_that_nothing_was_learned(values, learned):
    words = why_nothing_was_learned(rows_of(study_with(*values).trials), ["val/map"])
    assert (words is None) == learned


def test_of_several_objectives_one_that_differs_is_enough():
    rows = rows_of(study_with((0.0, 1.0), (0.0, 2.0), names="ab", directions=("maximize", "minimize")).trials)
    assert why_nothing_was_learned(rows, "ab") is None
    rows = rows_of(study_with((0.0, 1.0), (0.0, 1.0), names="ab", directions=("maximize", "minimize")).trials)
    assert "a 0.0000, b 1.0000" in why_nothing_was_learned(rows, "ab")


def test_where_nothing_was_learned_no_ranking_best_or_importance_is_shown(tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    study = study_with((0.0,), (0.0,), (0.0,))
    words = "nothing was learned: all 3 completed trials are worth the same, val/map 0.0000"
    report, output = concluded(study, tmp_path, capsys, plots=True)
    assert words in caplog.text
    assert "ranking" not in output
    assert "best" not in report.summary()
    assert words in (tmp_path / "plots/study.html").read_text()
    assert not (tmp_path / "plots/param_importances.png").exists()
    shown = printed(*study_lines(stored(tmp_path, study)))
    assert words in shown
    assert "best" not in shown


def test_every_plot_names_what_is_maximised(tmp_path, capsys, monkeypatch):
    import matplotlib.pyplot as plt

    labels = {}
    monkeypatch.setattr(plt, "close", lambda figure: labels.update({axes.get_ylabel(): figure for axes in figure.axes}))
    _, output = concluded(study_with((0.1,), (0.4,), (0.2,), None), tmp_path, capsys, plots=True)
    assert "ranking" in output
    assert (tmp_path / "plots/param_importances.png").exists()
    assert "val/map" in labels
    page = (tmp_path / "plots/study.html").read_text()
    titles = {text.replace("\\u002f", "/") for text in re.findall(r'"title":\{"text":"([^"]*)"', page)}
    assert "val/map" in titles
    for generic in ("Objective Value", "Intermediate Value"):
        assert generic not in labels
        assert generic not in titles


TWO = {"names": ("val/map", "cost/images"), "directions": ("maximize", "minimize")}
VALUES = [(0.5, 100.0), (0.6, 300.0), (0.4, 200.0), (0.7, 900.0)]
"""All but trial 2 are on the Pareto front."""


def test_several_objectives_have_a_column_each_and_the_pareto_front_is_marked(tmp_path, capsys):
    study = study_with(*VALUES, **TWO)
    report, output = concluded(study, tmp_path, capsys)
    table = ranking_table(report.rows, TWO["names"], pareto_front(study))
    assert [column.header for column in table.columns] == ["front", "trial", *TWO["names"], "epochs", "parameters"]
    assert [list(column.cells) for column in table.columns[:2]] == [["*", "*", "*", ""], ["0", "1", "3", "2"]]
    assert "Pareto front, by val/map" in output
    assert "3 on the Pareto front" in report.summary()
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["objective_val/map"]), float(row["objective_cost/images"])) for row in rows] == VALUES
    assert [row["pareto_front"] for row in rows] == ["1", "1", "0", "1"]
    shown = printed(*study_lines(stored(tmp_path, study)))
    assert "Pareto front: trials 0, 1, 3" in shown
    assert "cost/images" in shown
    assert "300.0000" in shown


def test_promotion_says_by_which_objective_it_chooses_and_takes_another(tmp_path, caplog):
    caplog.set_level("INFO")
    source = stored(tmp_path, study_with(*VALUES, **TWO))
    for by, wanted in ((None, [3, 1]), ("val/map", [3, 1]), ("cost/images", [0, 2])):
        place = source.objectives.place(by)
        best = best_configurations(source, 2, place)
        assert [row.number for row in best] == wanted
        tell_choice(source, best, place)
    assert (
        messages(caplog)[0]
        == "promoted: trials 3, 1, the best by val/map; for the best by another objective: --by cost/images"
    )
    assert messages(caplog)[2].startswith("promoted: trials 0, 2, the best by cost/images; ")
    with pytest.raises(ConfigError, match="no objective 'val/loss'; allowed: val/map, cost/images"):
        source.objectives.place("val/loss")


def test_a_promotion_by_another_objective_is_a_study_of_its_own(tmp_path):
    first = promotion_folder(tmp_path / "search", ["budget=full"], "val/map")
    first.mkdir()
    (first / "promotion.json").write_text('{"overrides": ["budget=full"], "by": "val/map"}')
    assert promotion_folder(tmp_path / "search", ["budget=full"], "val/map") == first
    assert promotion_folder(tmp_path / "search", ["budget=full"], "cost/images").name == "search-promoted-2"


def test_promoting_where_all_are_alike_says_that_none_was_the_best(tmp_path, caplog):
    source = stored(tmp_path, study_with((0.0,), (0.0,), (0.0,)))
    best = best_configurations(source, 3)
    tell_choice(source, best, 0)
    assert "nothing was learned" in caplog.text
    assert "those promoted are the first, not the best" in caplog.text


def test_a_trial_with_another_number_of_values_than_the_study_has_objectives_is_refused(tmp_path):
    study = study_with((0.5,), names=("val/map",))
    study._storage._studies[study._study_id].directions.append(optuna.study.StudyDirection.MINIMIZE)
    with pytest.raises(ConfigError, match="trial 0 holds 1 values, the study has 2 objectives"):
        study_lines(stored(tmp_path, study))


def test_a_study_that_was_begun_before_studies_held_names_has_some(tmp_path):
    single, two = optuna.create_study(), optuna.create_study(directions=["minimize", "maximize"])
    assert Objectives.of(single, "val/map") == Objectives(("val/map",), (False,))
    assert Objectives.of(two, "val/map") == Objectives(("value 0", "value 1"), (False, True))
    two._storage.set_study_system_attr(two._study_id, "study:metric_names", "damaged")
    assert Objectives.of(two, "val/map").names == ("value 0", "value 1")
