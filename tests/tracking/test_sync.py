"""``sync`` in this process, on what no uploader has sent; test_server and test_stages_and_sync have the whole of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from tracking_parts import assert_server_equals_outbox, mlflow_client

from winnow.errors import WinnowError
from winnow.process import ProcessStamp
from winnow.run_folder import PIPELINE_RECORD
from winnow.tracking.folder import TrackingFolder, UploadSettings
from winnow.tracking.mlflow_tracker import MlflowTracker
from winnow.tracking.sync import sync, tracked_folders

Log = Callable[..., None]


@pytest.fixture
def log(new_tracker: Callable[..., MlflowTracker], database_uri: str, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Log the steps of a run that nobody sends."""
    monkeypatch.setattr("winnow.tracking.launcher.UploaderProcess._start", lambda self: None)

    def log(*steps: int, uri: str = database_uri) -> None:
        with new_tracker(uri, drain_seconds=0) as tracker:
            for step in steps:
                tracker.log_metrics({"loss": step / 3}, step)

    return log


def remote_run(uri: str, run_id: str | None):
    return mlflow_client(uri).get_run(run_id)


def test_all_is_sent_once(log: Log, database_uri: str, run_folder: Path):
    log(*range(50))
    report = sync(run_folder)
    assert (report.unsent, report.waiting_files, report.trouble) == (0, 0, None)
    assert report.sent > 50
    assert_server_equals_outbox(database_uri, run_folder)
    assert remote_run(database_uri, report.run_id).info.status == "FINISHED"
    assert sync(run_folder).sent == 0
    log(*range(40, 60))
    assert sync(run_folder).run_id == report.run_id
    assert_server_equals_outbox(database_uri, run_folder)


def test_a_database_that_was_lost_is_filled_again(log: Log, empty_database: Path, database_uri: str, run_folder: Path):
    log(*range(10))
    first = sync(run_folder)
    shutil.copy(empty_database, database_uri.removeprefix("sqlite:///"))
    log(*range(10, 20))
    second = sync(run_folder)
    assert (second.unsent, second.run_id != first.run_id) == (0, True)
    assert_server_equals_outbox(database_uri, run_folder)


def test_a_database_that_is_away_is_told_and_gets_all_when_it_is_back(
    log: Log, empty_database: Path, run_folder: Path, tmp_path: Path
):
    disk = tmp_path / "disk"
    disk.touch()  # no folder, so that the database can't be there
    uri = f"sqlite:///{disk}/mlflow.db"
    log(*range(5), uri=uri)
    report = sync(run_folder, patience_seconds=0)
    assert (report.run_id, report.sent) == (None, 0)
    assert report.unsent > 5
    assert str(disk) in str(report.trouble)
    disk.unlink()
    disk.mkdir()
    shutil.copy(empty_database, disk / "mlflow.db")
    assert sync(run_folder).sent == report.unsent
    assert_server_equals_outbox(uri, run_folder)


def test_a_training_that_was_killed_is_marked_and_goes_on_in_the_same_run(
    log: Log, database_uri: str, run_folder: Path
):
    log(1, 2)
    folder = TrackingFolder.of_run(run_folder)
    *events, end = folder.outbox.read_bytes().splitlines(keepends=True)
    assert b"finish" in end
    folder.outbox.write_bytes(b"".join(events))
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        pass
    settings = UploadSettings.read(folder.settings)
    replace(settings, owner=replace(ProcessStamp.this_process(), pid=process.pid)).write(folder.settings)
    killed = remote_run(database_uri, sync(run_folder).run_id)
    assert (killed.info.status, killed.data.tags["winnow.status"]) == ("KILLED", "killed")
    log(2, 3)
    resumed = remote_run(database_uri, sync(run_folder).run_id)
    assert (resumed.info.status, resumed.info.run_id) == ("FINISHED", killed.info.run_id)
    assert_server_equals_outbox(database_uri, run_folder)


def test_a_run_whose_uploader_is_at_work_is_left_to_it(log: Log, run_folder: Path):
    log(1)
    with (
        FileLock(TrackingFolder.of_run(run_folder).lock),
        pytest.raises(WinnowError, match=f"another uploader is at work on {run_folder};"),
    ):
        sync(run_folder, patience_seconds=0.1)


def test_a_pipeline_is_synced_with_its_tracked_stages(tmp_path: Path):
    for name in ("second", "first"):
        (tmp_path / name / "tracking").mkdir(parents=True)
    (tmp_path / "untracked").mkdir()
    assert tracked_folders(tmp_path) == [tmp_path]
    (tmp_path / PIPELINE_RECORD).touch()
    assert tracked_folders(tmp_path) == [tmp_path, tmp_path / "first", tmp_path / "second"]


def test_a_folder_without_tracking_is_refused(tmp_path: Path):
    with pytest.raises(WinnowError, match="holds no tracked run"):
        sync(tmp_path)
