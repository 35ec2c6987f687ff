"""Against a real MLflow server on loopback that is paused, killed and brought back."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tracking_parts import (
    Server,
    assert_server_equals_outbox,
    kill_uploaders,
    mlflow_client,
    patient_requests,
    uploaders,
    wait_for,
)

from winnow.errors import WinnowError
from winnow.tracking.folder import RunState, TrackingFolder
from winnow.tracking.mlflow_tracker import MlflowTracker
from winnow.tracking.sync import sync

pytestmark = pytest.mark.promise

Build = Callable[..., MlflowTracker]
REQUEST_SECONDS = 2


@pytest.fixture(autouse=True)
def _impatient_requests(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def status_of(server: Server, run: Path) -> str:
    with patient_requests():
        return mlflow_client(server.uri).get_run(RunState.read(TrackingFolder.of_run(run).state).run_id).info.status


def test_a_server_that_is_paused_killed_broken_and_restarted_gets_all_once(
    server: Server, run_folder: Path, new_tracker: Build
):
    times: list[float] = []

    def log_for(tracker: MlflowTracker, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            tracker.log_metrics({"train/loss": len(times) / 7, "lr/all": 1e-3}, len(times))
            times.append(time.perf_counter() - start)
            time.sleep(0.002)

    (run_folder / "last.pth").write_bytes(b"x" * 100_000)
    with new_tracker(server.uri, drain_seconds=180) as tracker:
        wait_for(lambda: tracker.run_id)
        log_for(tracker, 1.5)
        server.signal(signal.SIGSTOP)
        log_for(tracker, 3)
        tracker.log_artifact(run_folder / "last.pth", "checkpoints")
        server.signal(signal.SIGCONT)
        log_for(tracker, 1)
        server.kill()
        log_for(tracker, 0.5)
        with server.broken():
            log_for(tracker, 2)
        restart = threading.Thread(target=server.start)
        restart.start()
        log_for(tracker, 2)
        restart.join()
    assert_server_equals_outbox(server.uri, run_folder)
    assert status_of(server, run_folder) == "FINISHED"
    assert [path.read_bytes() for path in server.folder.glob("artifacts/**/last.pth")] == [b"x" * 100_000]
    assert max(times) < REQUEST_SECONDS  # a request to it would take that long; a busy machine takes its part as well
    assert statistics.median(times) < 1e-3


def test_a_server_down_at_the_end_costs_bounded_time_and_sync_sends_the_rest(
    server: Server, run_folder: Path, new_tracker: Build, caplog: pytest.LogCaptureFixture
):
    with new_tracker(server.uri, drain_seconds=2) as tracker:
        tracker.log_metrics({"loss": 0.0}, 0)
        wait_for(lambda: RunState.read(TrackingFolder.of_run(run_folder).state).sequence >= 3)
        server.signal(signal.SIGSTOP)
        for step in range(1, 50):
            tracker.log_metrics({"loss": float(step)}, step)
        start = time.monotonic()
        tracker.finish("completed")
        assert time.monotonic() - start < 20  # the uploader, which is left behind, tries for minutes
    assert "50 events and 0 files are not with" in caplog.text
    assert f"winnow sync {run_folder}" in caplog.text

    with pytest.raises(WinnowError, match="another uploader is at work"):
        sync(run_folder, patience_seconds=0.5)
    kill_uploaders(run_folder)
    wait_for(lambda: not uploaders(run_folder))
    report = sync(run_folder, patience_seconds=1)
    assert report.unsent == 50
    assert report.trouble
    server.signal(signal.SIGCONT)
    report = sync(run_folder)
    assert (report.unsent, report.waiting_files, report.trouble) == (0, 0, None)
    assert_server_equals_outbox(server.uri, run_folder)
    assert status_of(server, run_folder) == "FINISHED"
    assert sync(run_folder).sent == 0


def test_an_uploader_left_behind_finishes_when_the_server_comes_back(
    server: Server, run_folder: Path, new_tracker: Build
):
    with new_tracker(server.uri, drain_seconds=0.5) as tracker:
        wait_for(lambda: tracker.run_id)
        server.signal(signal.SIGSTOP)
        tracker.log_metrics({"loss": 1.0}, 1)
    server.signal(signal.SIGCONT)
    wait_for(lambda: not uploaders(run_folder))
    assert_server_equals_outbox(server.uri, run_folder)
    assert status_of(server, run_folder) == "FINISHED"
