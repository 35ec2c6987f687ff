"""A search over real trainings, from the command line to MLflow."""

import json
import sys

import pytest
from composed import REPOSITORY
from mlflow.tracking import MlflowClient
from sweep_parts import finished, kill_with_children, start_program, start_python, table, wait_until

from winnow.sweep.stored_study import StoredStudy

TINY = [
    "data.num_train=24", "data.num_val=6", "data.size=64", "data.image_size=64", "training.num_workers=0",
    "training.max_epochs=2", "model.channels=[8,8,16,16]", "model.head_channels=32", "tracking.system_metrics_seconds=null",
    "tracking.log_checkpoints=false", "tracking.drain_seconds=60",
]  # fmt: skip
SWEEP = ["+sweep=lr_bs", *TINY, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]


def search(folder, *overrides):
    return start_program(REPOSITORY / "train.py", folder, *overrides)


def winnow(folder, *arguments, code=0):
    command = "from winnow.commands.cli import main; raise SystemExit(main())"
    return finished(start_python(folder, "-c", command, *arguments), code)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Return a folder in which the search has ended, with what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "train.py").symlink_to(REPOSITORY / "train.py")
    (folder / "conf").symlink_to(REPOSITORY / "conf")
    # A training in a worker process is swept in tests/test_your_family.py.
    return folder, finished(search(folder, *SWEEP, "hydra.sweeper.in_process=true"))


def are_alike(folder):
    """Return whether such small trainings are all worth the same, as 0.0 mostly."""
    study = StoredStudy.open(folder / "multirun/lr_bs").study
    assert study.metric_names == ["val/map"]
    return len({trial.value for trial in study.trials}) == 1


def test_the_search_ends_with_a_ranking_if_there_is_one_and_what_to_type_next(swept):
    folder, output = swept
    assert ("nothing was learned: all 3 completed trials are worth the same, val/map" in output) == are_alike(folder)
    assert ("ranking" in output) != are_alike(folder)
    assert "winnow promote multirun/lr_bs --top 3" in output
    rows = table(folder / "multirun", "lr_bs")
    assert [row["status"] for row in rows] == ["completed"] * 3
    assert all(float(row["epochs"]) == 2 and float(row["cost"]) > 0 and row["mlflow_run_id"] for row in rows)
    assert all(
        0 <= float(row["final_objective"]) == float(row["final_map"]) for row in rows
    )  # the objective is val/map


def test_each_run_trained_with_the_values_of_its_trial(swept):
    folder, _ = swept
    for row in table(folder / "multirun", "lr_bs"):
        recorded = (folder / "multirun" / "lr_bs" / row["trial_id"] / "config.yaml").read_text()
        assert f"batch_size: {row['param_training.batch_size']}" in recorded
        assert f"lr: {float(row['param_training.optimizer.lr'])!r}" in recorded
        assert "name: search" in recorded


def test_mlflow_holds_the_study_as_parent_of_its_trials(swept):
    folder, _ = swept
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "winnow"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [found for found in runs if found.info.run_name == "lr_bs"]
    children = [found for found in runs if found.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {found.data.tags["winnow.trial"] for found in children} == {"0", "1", "2"}
    assert len(runs) == 4
    best = max(float(row["final_map"]) for row in table(folder / "multirun", "lr_bs"))
    assert parent.data.metrics["best/map"] >= best
    assert parent.data.metrics["trials/completed"] == 3
    assert parent.data.metrics["cost/epochs"] == 6
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"plots", "trials.csv"}
    names = {item.path for item in client.list_artifacts(parent.info.run_id, "plots")}
    assert {"plots/study.html", "plots/timeline.png", "plots/intermediate_values.png"} <= names


def test_winnow_study_shows_the_table_and_changes_nothing(swept):
    folder, _ = swept
    before = (folder / "multirun/lr_bs/study.journal").read_bytes()
    output = winnow(folder, "study", "multirun/lr_bs")
    assert "completed" in output
    assert ("nothing was learned" if are_alike(folder) else "best: trial") in output
    assert (folder / "multirun/lr_bs/study.journal").read_bytes() == before
    assert "multirun/nothing is no study" in winnow(folder, "study", "multirun/nothing", code=2)


def test_optuna_dashboard_opens_the_study(swept):
    dashboard = pytest.importorskip("optuna_dashboard")
    folder, _ = swept
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    app = dashboard.wsgi(JournalStorage(JournalFileBackend(str(folder / "multirun/lr_bs/study.journal"))))
    answer = {}

    def start_response(status, headers, *_):
        answer["status"] = status

    request = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "SERVER_NAME": "x", "SERVER_PORT": "1", "wsgi.url_scheme": "http",
        "wsgi.input": None, "wsgi.errors": sys.stderr,
    }  # fmt: skip
    body = json.loads(b"".join(app(request, start_response)))
    assert answer["status"].startswith("200")
    assert [study["study_name"] for study in body["study_summaries"]] == ["lr_bs"]


@pytest.mark.slow
def test_the_best_are_promoted_continued_where_only_the_length_changes_and_compared(swept):
    folder, _ = swept
    output = winnow(folder, "promote", "multirun/lr_bs", "--top", "2", "budget=search", "training.max_epochs=3")
    started = [line for line in output.splitlines() if " starts: " in line]
    assert [line.count("training.resume=") for line in started] == [1, 1]
    assert "rank correlation" in output
    rows = table(folder / "multirun", "lr_bs-promoted")
    assert [row["status"] for row in rows] == ["completed"] * 2
    results = [
        json.loads((folder / "multirun/lr_bs-promoted" / row["trial_id"] / "result.json").read_text()) for row in rows
    ]
    assert [result["epochs"] for result in results] == [3, 3]
    again = winnow(folder, "promote", "multirun/lr_bs", "--top", "2", "budget=search", "training.max_epochs=3")
    assert "rank correlation" in again
    assert len(table(folder / "multirun", "lr_bs-promoted")) == 2


@pytest.mark.promise
def test_a_killed_search_goes_on_from_its_runs_own_checkpoints(tmp_path):
    overrides = [text for text in SWEEP if not text.startswith("tracking.")]
    overrides += ["tracking=off", "training.max_epochs=40", "hydra.sweeper.plots=false"]
    overrides += ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2"]
    process = search(tmp_path, *overrides)
    runs = [tmp_path / "multirun/lr_bs" / number for number in ("0", "1")]
    wait_until(lambda: all((run / "checkpoints/last.pth").exists() for run in runs))
    kill_with_children(process)
    finished(search(tmp_path, *overrides))
    assert [row["status"] for row in table(tmp_path / "multirun", "lr_bs")] == ["completed"] * 2
    for run in runs:
        assert json.loads((run / "result.json").read_text())["epochs"] == 40
        assert "resumed from" in (run / "train.log").read_text()
