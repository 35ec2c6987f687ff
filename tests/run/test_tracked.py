"""The names by which people find a tracked run, and what describes it."""

from dataclasses import replace

import pytest
from composed import compose_plain

from winnow.engine.state import Best
from winnow.run.plan import RunPlan
from winnow.run.tracked import description, pipeline_tags, run_name, short_number, tags_of, with_run_name
from winnow.sweep.current import CurrentTrial, running
from winnow.tracking.experiment_view import NOTE, VIEW_TAG, experiment_tag

CHOICES = {"model": "fcos_tiny", "data": "digits"}
SEARCHED = ("training.optimizer.lr", "training.batch_size", "model")


def plan_of(folder, *overrides):
    return RunPlan.of(compose_plain(*overrides), folder, CHOICES, None, None)


def trial(folder, **values):
    return CurrentTrial(None, 7, "lr_bs", folder, **{"searched": SEARCHED, **values})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3e-3, "3e-3"),
        (4.434e-4, "4.43e-4"),
        (0.25, "0.25"),
        (0.0, "0"),
        (16, "16"),
        (12345678.0, "1.23e7"),
        ("a", "a"),
        (True, "True"),
    ],
)
def test_numbers_are_written_as_people_write_them(value, words):
    assert short_number(value) == words


def test_a_run_is_called_by_model_data_and_learning_rate(tmp_path):
    plan = plan_of(tmp_path, "training.optimizer.lr=0.003")
    assert run_name(plan, None) == "fcos_tiny · digits · lr 3e-3"
    assert with_run_name(plan)["tracking"]["run_name"] == "fcos_tiny · digits · lr 3e-3"
    assert plan.recorded["tracking"]["run_name"] is None  # what is recorded is what was said


def test_a_trial_is_called_by_its_study_and_what_is_searched(tmp_path):
    plan = plan_of(tmp_path, "training.optimizer.lr=0.0004", "training.batch_size=4")
    assert run_name(plan, trial(tmp_path)) == "lr_bs 7 · lr 4e-4 · batch 4 · model fcos_tiny"
    assert run_name(plan, trial(tmp_path, seed=2)).endswith(" · seed 2")
    assert run_name(plan, trial(tmp_path, searched=())) == "lr_bs 7"


def test_a_name_of_ones_own_and_a_tracker_without_names_stay(tmp_path):
    assert with_run_name(plan_of(tmp_path, "tracking.run_name=mine"))["tracking"]["run_name"] == "mine"
    assert "run_name" not in with_run_name(plan_of(tmp_path, "tracking=off"))["tracking"]


def test_a_description_says_the_best_and_how_the_run_was_made(tmp_path):
    plan = plan_of(tmp_path)
    text = description(plan, "python train.py", Best("val/map", 0.8243, 12, 1128), "completed")[NOTE]
    assert text.startswith("**val/map 0.8243** at epoch 12, completed\n")
    for words in ("digits", "python train.py", str(tmp_path)):
        assert words in text
    assert description(plan, "x", None, "failed")[NOTE].startswith("nothing was evaluated, failed\n")


def test_until_its_end_a_description_claims_nothing_that_a_kill_would_make_wrong(tmp_path):
    assert description(plan_of(tmp_path), "x")[NOTE].startswith("Not concluded: it runs, or was killed.")


def test_only_runs_outside_of_a_sweep_ask_for_the_table_of_all_runs(tmp_path):
    plan = plan_of(tmp_path)
    tags = tags_of(plan, tmp_path)
    assert (tags["winnow.data"], tags["winnow.run_folder"]) == ("digits", str(tmp_path))
    key, state = experiment_tag(tags[VIEW_TAG])
    assert key == "winnow-map"
    assert '"selectedColumns": ["metrics.`best/map`"' in state
    with running(trial(tmp_path)):
        assert VIEW_TAG not in tags_of(plan, tmp_path)


def test_a_pipelines_own_run_has_no_data_set_of_its_own(tmp_path):
    plans = [replace(plan_of(tmp_path / name), name=name) for name in ("shapes", "fine")]
    tags = pipeline_tags(plans, tmp_path)
    assert "winnow.data" not in tags
    assert str(tmp_path) in tags[NOTE]
