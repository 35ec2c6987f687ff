import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from winnow.report.study import MOST_ROWS, chosen, write_study_report
from winnow.sweep.outcome import OUTCOME, Outcome
from winnow.sweep.stored_study import StoredStudy

SPACE = {
    "training.optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True),
    "training.batch_size": CategoricalDistribution((4, 8)),
}
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def study_of(num_trials):
    """Return a stored study in memory: every third trial is pruned at its second epoch."""
    rng = random.Random(0)
    study = optuna.create_study(direction="maximize")
    study.set_metric_names(["val/map"])
    trials = []
    for number in range(num_trials):
        is_pruned = number % 3 == 2
        curve = {1: rng.random() / 2, 2: rng.random() / 2} if is_pruned else {1: 0.1, 2: 0.3, 3: rng.random()}
        outcome = Outcome(
            "pruned" if is_pruned else "completed", (list(curve.values())[-1],), epochs=len(curve), seconds=1.0
        )
        trials.append(create_trial(
            state=TrialState.PRUNED if is_pruned else TrialState.COMPLETE, value=None if is_pruned else curve[3],
            distributions=SPACE,
            params={"training.optimizer.lr": 10 ** rng.uniform(-5, -2), "training.batch_size": rng.choice((4, 8))},
            intermediate_values=curve, user_attrs={OUTCOME: outcome.to_json()},
        ))  # fmt: skip
    study.add_trials(trials)
    return study


def stored(folder, study):
    definition = {"base": {}, "search_space": {}, "directions": [], "pruner": None}
    return StoredStudy(folder, {"study_name": "<b>search</b>", "definition": definition, "metric": "val/map"}, study)


def test_a_study_s_page_shows_its_trials_curves_and_parameters(tmp_path):
    study = study_of(30)
    page = write_study_report(stored(tmp_path, study), tmp_path / "report.html").read_text()
    assert "&lt;b&gt;search&lt;/b&gt;" in page
    assert "20 completed, 10 pruned" in page
    assert f"{study.best_value:.4f}" in page
    assert "Importance of each parameter" in page
    assert page.count("<tr>") > 30
    assert "are shown: the best, the last" not in page
    for title in ("val/map by trial", "Best val/map so far", "Parameters of each trial", "of the five best trials"):
        assert title in page


@pytest.mark.parametrize("num_trials", [0, 1])
def test_a_study_of_no_trial_or_one_has_a_page(tmp_path, num_trials):
    page = write_study_report(stored(tmp_path, study_of(num_trials)), tmp_path / "report.html").read_text()
    assert "What to do next" in page


def test_a_large_study_is_thinned_and_the_page_says_so(tmp_path):
    study = study_of(3000)
    page = write_study_report(stored(tmp_path, study), tmp_path / "report.html").read_text()
    assert f"{MOST_ROWS} of 3000 trials are shown: the best, the last, and a sample of the others." in page
    assert f"{study.best_value:.4f}" in page
    assert len(page) < 1_500_000


def test_the_best_and_the_last_are_always_chosen(tmp_path):
    rows = stored(tmp_path, study_of(1000)).rows()
    kept = chosen(rows, 90, maximize=True)
    numbers = {row.number for row in kept}
    assert len(kept) == 90
    best = sorted((row for row in rows if row.status == "completed"), key=lambda row: -row.value)[:30]
    assert {row.number for row in best} <= numbers
    assert {row.number for row in rows[-30:]} <= numbers
    assert [row.number for row in kept] == sorted(numbers)
