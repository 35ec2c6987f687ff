"""A pipeline whose MLflow database is away while it trains, and ``winnow sync`` on its folder afterwards."""

import json
import shutil

import pytest
from filelock import FileLock
from stage_parts import TINY, write_stages
from tracking_parts import assert_server_equals_outbox, kill_uploaders, mlflow_client, uploaders, wait_for

from winnow.commands.cli import main
from winnow.tracking.folder import TrackingFolder

pytestmark = pytest.mark.promise

TRACKED = [*TINY, "tracking.drain_seconds=0", "tracking.system_metrics_seconds=null", "tracking.log_checkpoints=false"]
PARTS = ("", "shapes", "fine")


@pytest.fixture
def trained(warm_program, tmp_path):
    """Return the pipeline's folder, and the address of the database, in whose folder's place a file lies."""
    write_stages(tmp_path)
    (tmp_path / "disk").touch()
    uri = f"sqlite:///{tmp_path}/disk/mlflow.db"
    printed = warm_program.run(tmp_path, *TRACKED, f"tracking.uri={uri}", "stage=both", "hydra.run.dir=run")
    run = tmp_path / "run"
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    assert f"winnow sync {run}" in printed
    for part in PARTS:
        kill_uploaders(run / part)
        wait_for(lambda part=part: not uploaders(run / part))
    return run, uri


def test_sync_sends_the_whole_and_its_stages_once_the_database_is_back(trained, tmp_path, empty_database, capsys):
    run, uri = trained
    with FileLock(TrackingFolder.of_run(run).lock):
        assert main(["sync", str(run), "--patience", "0.5"]) == 1
    printed = capsys.readouterr()
    assert f"another uploader is at work on {run};" in printed.err
    assert printed.out.count("events and") == 2  # those of the stages
    (tmp_path / "disk").unlink()
    (tmp_path / "disk").mkdir()
    shutil.copy(empty_database, tmp_path / "disk/mlflow.db")
    assert main(["sync", str(run)]) == 0
    for part in PARTS:
        assert_server_equals_outbox(uri, run / part)
    client = mlflow_client(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == "winnow"]
    found = client.search_runs([experiment.experiment_id])
    runs = {run.info.run_name.split(" · ")[0]: run for run in found}
    (whole_name,) = runs.keys() - {"shapes", "fine"}
    assert runs[whole_name].info.run_name.endswith(" · shapes → fine")
    assert {name: found.info.status for name, found in runs.items()} == dict.fromkeys(
        (whole_name, "shapes", "fine"), "FINISHED"
    )
    parents = {name: found.data.tags.get("mlflow.parentRunId") for name, found in runs.items()}
    whole = runs[whole_name].info.run_id
    assert parents == {whole_name: None, "shapes": whole, "fine": whole}
    assert main(["sync", str(run)]) == 0
    assert capsys.readouterr().out.count(": 0 events sent now, 0 events and 0 files left") == 3
