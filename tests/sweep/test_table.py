"""Trials as rows."""

import csv

import optuna
import pytest

from winnow.errors import ConfigError
from winnow.sweep.outcome import OUTCOME, OVERRIDES, OWNER, RELEASED, STARTED, STATUSES, Outcome
from winnow.sweep.table import FIRST_COLUMNS, LAST_COLUMNS, counts, ranking, rows_of, saved, spent, write_csv

SPACE = {"training.optimizer.lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)}


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


def ended(study, status, value=0.5, **fields):
    """Return a trial with an outcome, told as the sweep tells it."""
    trial = study.ask(SPACE)
    outcome = Outcome(status, (value,) if status == "completed" else (), **fields)
    trial.set_user_attr(OUTCOME, outcome.to_json())
    states = {"completed": "COMPLETE", "pruned": "PRUNED", "diverged": "PRUNED"}
    state = optuna.trial.TrialState[states.get(status, "FAIL")]
    study.tell(trial, value if status == "completed" else None, state=state)
    return trial


def test_the_csv_has_the_promised_columns_and_every_status(study, tmp_path):
    for status in ("completed", "pruned", "diverged", "out_of_memory", "failed"):
        ended(
            study,
            status,
            epochs=3,
            seconds=1.25,
            cost={"images_640": 10.0},
            reason=f"because, {status}",
            final_map=0.25,
        )
    write_csv(tmp_path / "trials.csv", rows_of(study.trials))
    with (tmp_path / "trials.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == [*FIRST_COLUMNS, "param_training.optimizer.lr", *LAST_COLUMNS]
    assert [line[1] for line in lines] == ["completed", "pruned", "diverged", "out_of_memory", "failed"]
    assert dict(zip(header, lines[1], strict=True))["reason"] == "because, pruned"
    assert dict(zip(header, lines[0], strict=True))["cost"] == "10.0"


@pytest.mark.parametrize(("known", "final_map", "final_objective"), [
    ({"final_map": 0.25, "final_objective": 0.5}, "0.25", "0.5"), ({"final_objective": 0.5}, "", "0.5"),
    ({"final_map": 0.25}, "0.25", ""), ({}, "0.75", ""),
])  # fmt: skip
def test_final_map_is_filled_where_the_family_has_one_or_nothing_is_known(
    study, tmp_path, known, final_map, final_objective
):
    ended(study, "completed", 0.75, **known)
    write_csv(tmp_path / "trials.csv", rows_of(study.trials))
    (row,) = csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())
    assert (row["final_map"], row["final_objective"]) == (final_map, final_objective)


def test_an_outcome_stored_before_there_was_a_final_objective_is_read():
    stored = '{"status": "completed", "values": [0.5], "epochs": 2, "final_map": 0.25, "final_loss": 1.5, "is_retryable": false}'
    outcome = Outcome.from_json(stored)
    assert (outcome.final_map, outcome.final_objective, outcome.values) == (0.25, None, (0.5,))


def test_a_trial_that_ends_below_the_floor_is_eliminated_and_not_ranked(study):
    ended(study, "completed", 0.1)
    ended(study, "completed", 0.9)
    rows = rows_of(study.trials, lambda trial: trial.values[0] < 0.2)
    assert [row.status for row in rows] == ["eliminated", "completed"]
    assert [row.number for row in ranking(rows, maximize=True)] == [1]


def test_an_interrupted_trial_has_a_row_and_a_running_or_waiting_one_has_none(study):
    interrupted = study.ask(SPACE)
    interrupted.set_user_attr(STARTED, True)
    interrupted.set_user_attr(OWNER, RELEASED)
    study.ask(SPACE)
    study.enqueue_trial({})
    assert [(row.number, row.status) for row in rows_of(study.trials)] == [(0, "interrupted")]


def test_another_programs_study_is_shown_by_what_optuna_knows(study):
    trial = study.ask(SPACE)
    for epoch in (1, 2, 3):
        trial.report(0.1, epoch)
    study.tell(trial, 0.7)
    (row,) = rows_of(study.trials)
    assert (row.status, row.value, row.outcome.epochs) == ("completed", 0.7, 3)


@pytest.mark.parametrize(("maximize", "order"), [(True, [1, 2, 0]), (False, [0, 2, 1])])
def test_the_ranking_begins_with_the_best(study, maximize, order):
    for value in (0.1, 0.9, 0.5):
        ended(study, "completed", value)
    assert [row.number for row in ranking(rows_of(study.trials), maximize)] == order


def test_what_pruning_saved_is_reckoned_from_each_trials_own_cost_per_epoch(study):
    ended(study, "completed", epochs=10, cost={"images": 1000.0})
    ended(study, "pruned", epochs=2, cost={"images": 100.0})
    ended(study, "failed", epochs=1, cost={"images": 50.0})
    rows = rows_of(study.trials)
    assert spent(rows) == {"epochs": 13.0, "images": 1150.0}
    assert saved(rows, lambda row: 10) == {"epochs": 8.0, "images": 400.0}
    assert saved(rows, lambda row: None) == {}
    assert counts(rows) == {"completed": 1, "pruned": 1, "failed": 1}


def test_an_outcome_survives_the_storage():
    outcome = Outcome("pruned", (0.5, 1.0), reason="why", cost={"images": 3.0}, pruned_at=4, seed=2)
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert outcome.status in STATUSES


@pytest.mark.parametrize(("attribute", "value", "message"), [
    (OUTCOME, "{", "trial 0 holds a damaged winnow:outcome: not JSON"), (OUTCOME, "[" * 10**5, "more than 100 deep"),
    (OUTCOME, 3, "trial 0 holds a damaged winnow:outcome"),
    (OUTCOME, '{"status": "zork"}', "status: 'zork' is none of completed, "),
    (OUTCOME, '{"status": "failed", "seconds": "x"}', "no Outcome: seconds"),
    (OVERRIDES, 3, "trial 0 holds damaged winnow:overrides: 3"),
    (OVERRIDES, [{"a": 1}], "damaged winnow:overrides"),
])  # fmt: skip
def test_what_a_trial_holds_and_no_sweep_wrote_is_named(study, attribute, value, message):
    trial = study.ask(SPACE)
    trial.set_user_attr(attribute, value)
    study.tell(trial, 0.5)
    with pytest.raises(ConfigError, match=message):
        rows_of(study.get_trials())
