"""The uploader process against an SQLite store."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tracking_parts import DEFAULTS, assert_server_equals_outbox, mlflow_client, outbox_points, uploaders, wait_for

from winnow.process import ProcessStamp
from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings
from winnow.tracking.mlflow_tracker import MlflowTracker
from winnow.tracking.outbox import Event
from winnow.tracking.remote import RemoteRun
from winnow.tracking.uploader import Uploader

Build = Callable[..., MlflowTracker]

TRAINING = """
import signal, sys, time
from pathlib import Path
from winnow.tracking.mlflow_tracker import MlflowTracker

# A shell starts its background jobs, and so what they start, with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

run, uri, first, last, pause, settings = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:6]), eval(sys.argv[6])
with MlflowTracker(Path(run), uri=uri, **settings) as tracker:
    for step in range(int(first), int(last)):
        tracker.log_metrics({"train/loss": 1 / (step + 1), "lr/all": step * 0.1}, step)
        time.sleep(pause)
"""

SYSTEM_METRICS = {
    f"system/{name}"
    for name in (
        "cpu_utilization_percentage", "system_memory_usage_percentage", "disk_usage_percentage", "process_memory_megabytes",
    )
}  # fmt: skip
"""As MLflow itself names them."""


def train(run: Path, uri: str, first: int, last: int, pause: float = 0.0) -> subprocess.Popen[bytes]:
    run.mkdir(exist_ok=True)
    arguments = [str(run), uri, str(first), str(last), str(pause), repr(DEFAULTS)]
    return subprocess.Popen([sys.executable, "-c", TRAINING, *arguments])


def remote_run(uri: str, run: Path):
    return mlflow_client(uri).get_run(RunState.read(TrackingFolder.of_run(run).state).run_id)


def num_sent(run: Path) -> int:
    return RunState.read(TrackingFolder.of_run(run).state).sequence


def test_all_kinds_of_events_arrive(database_uri: str, run_folder: Path, new_tracker: Build, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    (run_folder / "best.pth").write_text("weights")
    described = {"tags": {"team": "a"}, "parent_run_id": "f" * 32, "run_name": "first"}
    with new_tracker(database_uri, system_metrics_seconds=0.2, **described) as tracker:
        tracker.log_params({"model": {"lr": 0.1}, "note": "x" * 9000})
        tracker.log_artifact(run_folder / "best.pth", "checkpoints")
        tracker.log_artifact(run_folder / "gone.pth", "checkpoints")
        tracker.log_artifact(run_folder / ("long" * 2000), "checkpoints")
        tracker.set_tags({"mlflow.user": "me"})
        for step, value in enumerate([1.0, math.nan, math.inf, -math.inf, 0.1 + 0.2]):
            tracker.log_metrics({"val/odd": value} if not math.isinf(value) else {"val/inf": value}, step)
        wait_for(
            lambda: num_sent(run_folder) and SYSTEM_METRICS.issubset(remote_run(database_uri, run_folder).data.metrics)
        )
        tracker.finish("early_stopped")
    run = remote_run(database_uri, run_folder)
    assert 10 < run.data.metrics["system/process_memory_megabytes"] < 100_000
    assert (run.info.status, run.info.run_name, tracker.run_id) == ("FINISHED", "first", run.info.run_id)
    assert run.data.params == {"model.lr": "0.1", "note": "x" * 5999 + "…"}
    expected = {"winnow.status": "early_stopped", "team": "a", "mlflow.user": "me", "mlflow.parentRunId": "f" * 32}
    assert run.data.tags.items() >= expected.items()
    assert run.data.metrics["val/odd"] == 0.1 + 0.2
    assert abs(run.data.metrics["val/inf"]) == sys.float_info.max
    artifacts = Path(run.info.artifact_uri)
    assert artifacts.is_relative_to(run_folder.parent / "mlartifacts")
    assert [path.name for path in artifacts.rglob("*.pth")] == ["best.pth"]
    wait_for(lambda: not uploaders(run_folder))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("completed", "FINISHED"),
        ("early_stopped", "FINISHED"),
        ("interrupted", "KILLED"),
        ("killed", "KILLED"),
        ("diverged", "FAILED"),
        ("failed", "FAILED"),
    ],
)
def test_winnows_word_for_the_end_becomes_mlflows(database_uri: str, run_folder: Path, status: str, expected: str):
    settings = UploadSettings("key", 1000, ProcessStamp.this_process(), database_uri, "winnow", "run")
    run = RemoteRun.open(settings, None)
    run.send([Event(1, 1000, "start", {}), Event(2, 2000, "finish", {"status": status})])
    found = mlflow_client(database_uri).get_run(run.run_id)
    assert (found.info.status, found.info.end_time, found.data.tags["winnow.status"]) == (expected, 2000, status)
    assert RemoteRun.open(settings, None).run_id == run.run_id
    assert RemoteRun.open(settings, run.run_id).sequence == 2


@pytest.mark.parametrize(
    ("kind", "size"), [("metrics", 1), ("metrics", 7), ("metrics", 500), ("params", 20), ("tags", 19)]
)
def test_a_batch_and_its_tag_always_fit_into_one_request(run_folder: Path, kind: str, size: int):
    folder = TrackingFolder.of_run(run_folder)
    folder.path.mkdir()
    UploadSettings("key", 1000, ProcessStamp.this_process(), "sqlite:///unused.db", "winnow", "run").write(
        folder.settings
    )
    names = [f"name{n}" for n in range(size)]
    payload = {"step": 1, "values": dict.fromkeys(names, 1.0)} if kind == "metrics" else dict.fromkeys(names, "1")
    folder.outbox.write_bytes(b"".join(Event(n, 1000, kind, payload).encode() for n in range(1, 301)))
    uploader = Uploader(folder, lambda: True)
    seen = []
    while batch := uploader._next_batch()[0]:
        assert len(batch) * size + 1 <= (1000 if kind == "metrics" else 100)
        uploader.state.sequence = batch[-1].sequence
        seen += [event.sequence for event in batch]
    assert seen == list(range(1, 301))
    assert uploader._offset == folder.outbox.stat().st_size


@pytest.mark.promise
def test_an_uploader_killed_again_and_again_loses_and_doubles_nothing(
    database_uri: str, run_folder: Path, new_tracker: Build
):
    with new_tracker(database_uri) as tracker:
        for step in range(900):
            tracker.log_metrics({"loss": step / 3}, step)
            if step % 300 == 299:
                wait_for(lambda: tracker.uploader_pid and num_sent(run_folder) > 2)
                psutil.Process(tracker.uploader_pid).kill()
            time.sleep(0.001)
        first_id = tracker.run_id
    assert_server_equals_outbox(database_uri, run_folder)
    assert remote_run(database_uri, run_folder).info.run_id == first_id
    assert remote_run(database_uri, run_folder).info.status == "FINISHED"


@pytest.mark.promise
def test_a_killed_training_is_marked_and_its_resume_goes_on_in_the_same_run(database_uri: str, run_folder: Path):
    training = train(run_folder, database_uri, 0, 100_000, 0.01)
    wait_for(lambda: num_sent(run_folder) > 50)
    training.send_signal(signal.SIGKILL)
    training.wait()
    wait_for(lambda: not uploaders(run_folder))
    killed = remote_run(database_uri, run_folder)
    assert (killed.info.status, killed.data.tags["winnow.status"]) == ("KILLED", "killed")
    assert_server_equals_outbox(database_uri, run_folder)

    end = 20 + max(step for step, *_ in outbox_points(run_folder)["train/loss"])
    assert train(run_folder, database_uri, 10, end).wait() == 0
    resumed = remote_run(database_uri, run_folder)
    assert (resumed.info.status, resumed.info.run_id) == ("FINISHED", killed.info.run_id)
    assert "winnow.rewritten_from_step" not in resumed.data.tags
    assert_server_equals_outbox(database_uri, run_folder)
    steps = [point.step for point in _history(database_uri, killed.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(end))


def _history(uri: str, run_id: str, name: str):
    return mlflow_client(uri).get_metric_history(run_id, name)


def test_ctrl_c_in_the_terminal_ends_the_training_but_not_its_uploader(database_uri: str, run_folder: Path):
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(run_folder), database_uri, "0", "100000", "0.01", repr(DEFAULTS)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: num_sent(run_folder) > 10)
    os.killpg(training.pid, signal.SIGINT)
    training.wait()
    run = remote_run(database_uri, run_folder)
    assert (run.info.status, run.data.tags["winnow.status"]) == ("KILLED", "interrupted")
    assert_server_equals_outbox(database_uri, run_folder)


@pytest.mark.promise
def test_four_processes_open_a_fresh_database_at_once(tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    runs = [tmp_path / f"run{n}" for n in range(4)]
    trainings = [train(run, uri, 0, 20) for run in runs]
    assert [training.wait() for training in trainings] == [0] * 4
    for run in runs:
        wait_for(lambda run=run: not uploaders(run))
        assert remote_run(uri, run).info.status == "FINISHED"
        assert_server_equals_outbox(uri, run)


def test_a_run_deleted_on_the_server_is_not_made_again(database_uri: str, run_folder: Path, new_tracker: Build, caplog):
    with new_tracker(database_uri) as tracker:
        run_id = wait_for(lambda: tracker.run_id)
        mlflow_client(database_uri).delete_run(run_id)
        tracker.log_metrics({"loss": 1.0}, 1)
        wait_for(lambda: RunState.read(TrackingFolder.of_run(run_folder).state).is_deleted)
        wait_for(lambda: "was deleted" in caplog.text)
    wait_for(lambda: not uploaders(run_folder))
    assert mlflow_client(database_uri).get_run(run_id).info.lifecycle_stage == "deleted"


def test_what_the_server_refuses_is_left_out_and_the_rest_arrives(
    database_uri: str, run_folder: Path, new_tracker: Build, monkeypatch
):
    monkeypatch.setattr("winnow.tracking.mlflow_tracker.is_allowed_name", lambda name: True)
    with new_tracker(database_uri) as tracker:
        for step in range(5):
            tracker.log_metrics({"loss": float(step)}, step)
        tracker.log_metrics({"bad@name": 1.0}, 5)
        tracker.log_metrics({"loss": 6.0}, 6)
    steps = [point.step for point in _history(database_uri, tracker.run_id, "loss")]
    assert sorted(steps) == [0, 1, 2, 3, 4, 6]
    assert "bad@name" in TrackingFolder.of_run(run_folder).log.read_text()


@pytest.mark.promise
def test_a_database_that_was_lost_is_filled_again(database_uri: str, run_folder: Path, new_tracker: Build):
    for first, last in ((0, 10), (10, 20)):
        with new_tracker(database_uri) as tracker:
            for step in range(first, last):
                tracker.log_metrics({"loss": float(step)}, step)
        if first == 0:
            Path(database_uri.removeprefix("sqlite:///")).unlink()
    assert_server_equals_outbox(database_uri, run_folder)
    assert sorted(point.step for point in _history(database_uri, tracker.run_id, "loss")) == list(range(20))
