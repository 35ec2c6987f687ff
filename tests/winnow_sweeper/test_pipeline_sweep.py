"""A sweep over a pipeline of stages: real processes, a real study, a real MLflow store."""

import json

import optuna
import pytest
from composed import REPOSITORY
from stage_parts import SHAPES, TINY, write_stages
from sweep_parts import finished, kill_with_children, start_program, start_python, table, wait_until

from winnow.sweep.storage import open_storage

SWEEP = [
    *TINY, "stage=both", "hydra/sweeper=winnow", "hydra.sweeper.direction=maximize", "hydra.sweeper.study_name=study",
    "hydra.sweep.dir=multirun/study", "hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1", "hydra.sweeper.devices=null",
    "hydra.sweeper.plots=false", "training.clip_grad_norm=choice(0.1,0.2)",
]  # fmt: skip
UNTRACKED = [*SWEEP, "tracking=off"]

pytestmark = pytest.mark.promise


@pytest.fixture
def folder(tmp_path):
    return write_stages(tmp_path)


def start(folder, *arguments):
    return start_program(REPOSITORY / "train.py", folder, *arguments)


def sweep(folder, *arguments):
    return finished(start(folder, *arguments))


def rows(folder):
    return table(folder / "multirun")


def reported(folder):
    storage = open_storage(f"journal:///{folder}/multirun/study/study.journal")
    return optuna.load_study(study_name="study", storage=storage).trials[0].intermediate_values


def test_a_trial_is_judged_by_its_last_stage_and_tracked_as_parent_of_its_stages(folder):
    sweep(folder, *SWEEP, "tracking.system_metrics_seconds=null", "tracking.log_checkpoints=false")
    (row,) = rows(folder)
    trial = folder / "multirun/study/0"
    result = json.loads((trial / "result.json").read_text())
    assert (row["status"], row["epochs"], row["mlflow_run_id"]) == ("completed", "5", result["mlflow_run_id"])
    assert list(result["stages"]) == ["shapes", "fine"]
    assert list(reported(folder)) == [1, 2, 3, 4, 5]
    assert result["objective"] == result["stages"]["fine"]["objective"] == max(list(reported(folder).values())[2:])
    assert parents_by_name(folder) == {"study": None, "study 0": "study", "shapes": "study 0", "fine": "study 0"}


def parents_by_name(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "winnow"]
    runs = client.search_runs([experiment.experiment_id])
    names = {run.info.run_id: run.info.run_name.split(" · ")[0] for run in runs}
    assert {run.info.status for run in runs} == {"FINISHED"}
    return {names[run.info.run_id]: names.get(run.data.tags.get("mlflow.parentRunId")) for run in runs}


@pytest.mark.parametrize(("from_epoch", "stages"), [(1, ["shapes"]), (2, ["shapes", "fine"])])
def test_a_trial_is_pruned_in_any_stage(folder, from_epoch, stages):
    pruner = ["hydra/sweeper/pruner=median_threshold", "hydra.sweeper.pruner.floor=2.0"]
    sweep(folder, *UNTRACKED, *pruner, f"hydra.sweeper.pruner.floor_from_epoch={from_epoch}")
    (row,) = rows(folder)
    # In a stage's last epoch there is nothing left to save, so the second epoch's verdict falls in the third.
    assert (row["status"], row["pruned_at"]) == ("pruned", {1: "1", 2: "3"}[from_epoch])
    result = json.loads((folder / "multirun/study/0/result.json").read_text())
    assert (result["status"], list(result["stages"])) == ("pruned", stages)


def test_a_killed_trial_goes_on_in_its_unfinished_stage(folder):
    longer = [*UNTRACKED, "training.max_epochs=8"]
    process = start(folder, *longer)
    last = folder / "multirun/study/0/fine/checkpoints/last.pth"
    wait_until(last.exists)
    kill_with_children(process)
    sweep(folder, *longer)
    (row,) = rows(folder)
    assert (row["status"], row["epochs"]) == ("completed", "16")
    log = (folder / "multirun/study/0/train.log").read_text()
    assert log.count("stage shapes (1 of 2)") == 1
    assert "finished already: shapes" in log


@pytest.mark.parametrize(
    "where", [["hydra.sweeper.in_process=true"], ["hydra/launcher=submitit_local"], ["hydra/launcher=ray"]]
)
def test_stages_are_composed_wherever_a_job_runs(folder, where):
    sweep(folder, *UNTRACKED, *where)
    assert [(row["status"], row["epochs"]) for row in rows(folder)] == [("completed", "5")]


def test_a_pipelines_stages_are_checked_before_a_sweep_starts(tmp_path):
    folder = write_stages(tmp_path, shapes=SHAPES.replace("max_epochs: 2", "max_epochs: 0"))
    printed = finished(start(folder, *UNTRACKED), code=1)
    assert "ConfigError: stage=shapes: training.max_epochs=0" in printed
    assert not (folder / "multirun/study/0").exists()


def test_a_pipeline_of_a_folder_of_ones_own_is_promoted_and_trained_from_the_beginning(folder):
    for name in ("train.py", "conf"):
        (folder / name).symlink_to(REPOSITORY / name)
    sweep(folder, *UNTRACKED)
    command = "from winnow.commands.cli import main; raise SystemExit(main())"
    arguments = ["promote", "multirun/study", "--top", "1", "budget=search", "training.max_epochs=1"]
    refused = finished(start_python(folder, "-c", command, *arguments), code=2)
    assert f"If it is yours, add 'hydra.searchpath=[file://{folder}/own]'" in refused
    arguments += [f"hydra.searchpath=[file://{folder}/own]", "trusted_targets=[troubled]"]
    printed = finished(start_python(folder, "-c", command, *arguments))
    assert "trial 0 is a pipeline: all of its stages are trained from the beginning" in printed
    assert [row["status"] for row in table(folder / "multirun", "study-promoted")] == ["completed"]
    result = json.loads((folder / "multirun/study-promoted/0/result.json").read_text())
    assert {name: part["epochs"] for name, part in result["stages"].items()} == {"shapes": 1, "fine": 1}
