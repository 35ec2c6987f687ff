"""The training side alone: nothing here needs a server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tracking_parts import DEFAULTS, outbox_points, wait_for

from winnow.errors import ConfigError
from winnow.tracking.folder import TrackingFolder, UploadSettings
from winnow.tracking.mlflow_tracker import MlflowTracker
from winnow.tracking.null_tracker import NullTracker
from winnow.tracking.outbox import Event, read_events, read_last_event

NOBODY = "http://127.0.0.1:9"  # the discard port: connections are refused at once
Build = Callable[..., MlflowTracker]


@pytest.fixture(autouse=True)
def _no_uploader(monkeypatch: pytest.MonkeyPatch):
    """Keep uploaders from starting: these tests are about the outbox; a process that imports MLflow for each would only cost
    time."""
    monkeypatch.setattr("winnow.tracking.launcher.UploaderProcess._start", lambda self: None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("uri", "mlruns", "sqlite:///FILE"),
        ("uri", "ftp://host", "allowed"),
        ("uri", "file:///tmp/mlruns", "allowed"),
        ("uri", "sqlite://", "names no file"),
        ("experiment", "", "at least 1"),
        ("drain_seconds", -1, "greater than or equal to 0"),
        ("drain_seconds", "30", "number"),
        ("system_metrics_seconds", 0, "greater than 0"),
        ("tags", {"a": 1}, "string"),
        ("experimint", "x", "allowed here"),
    ],
)
def test_a_wrong_setting_is_named(run_folder: Path, key: str, value: Any, message: str):
    settings = {"uri": NOBODY, **DEFAULTS, key: value}
    with pytest.raises(ConfigError, match=rf"tracking\.{key}.*{message}"):
        MlflowTracker(run_folder, **settings)


def test_a_relative_database_is_fixed_to_the_working_folder(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run_folder)
    tracker = MlflowTracker(run_folder, uri="sqlite:///mlflow.db", **DEFAULTS)
    assert tracker._settings.uri == f"sqlite:///{run_folder}/mlflow.db"


def test_tracking_off_takes_no_settings(run_folder: Path):
    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        NullTracker(run_folder, uri=NOBODY)


def test_training_never_imports_mlflow(run_folder: Path):
    code = "import sys, winnow.tracking.mlflow_tracker, winnow.tracking.provenance; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"mlflow", "torch", "sqlalchemy"} & set(loaded)


@pytest.mark.parametrize("kind", ["mlflow", "off"])
def test_every_tracker_takes_every_call(kind: str, run_folder: Path, new_tracker: Build):
    tracker = new_tracker(NOBODY, drain_seconds=0) if kind == "mlflow" else NullTracker(run_folder)
    with tracker as entered:
        assert entered is tracker
        tracker.log_params({"a": {"b": 1}})
        tracker.log_metrics({"loss": 1.0}, step=1)
        tracker.set_tags({"t": "x"})
        tracker.log_artifact(run_folder / "missing.txt", "files")
        assert tracker.run_id is None
        assert tracker.flush(5)
        tracker.finish("completed")
    assert isinstance(tracker.log_checkpoints, bool)


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "completed"), (KeyboardInterrupt, "interrupted"), (ValueError, "failed"), (SystemExit, "failed")],
)
def test_leaving_without_finish_tells_how_it_ended(
    run_folder: Path, new_tracker: Build, error: type[BaseException] | None, status: str
):
    def train() -> None:
        with new_tracker(NOBODY, drain_seconds=0):
            if error is not None:
                raise error

    if error is None:
        train()
    else:
        with pytest.raises(error):
            train()
    last = read_last_event(TrackingFolder.of_run(run_folder).outbox)
    assert last is not None
    assert (last.kind, last.payload) == ("finish", {"status": status})


def test_names_and_values_that_cannot_be_are_told_once_and_left_out(
    run_folder: Path, new_tracker: Build, caplog: pytest.LogCaptureFixture
):
    with new_tracker(NOBODY, drain_seconds=0) as tracker:
        for step in range(3):
            tracker.log_metrics({"val/mAP@50": 1.0, "word": "x", "loss": 1.0}, step)  # type: ignore[dict-item]
    assert outbox_points(run_folder).keys() == {"loss"}
    assert caplog.text.count("val/mAP@50") == 1
    assert caplog.text.count("metric word") == 1


def test_what_is_flushed_is_in_the_file(run_folder: Path, new_tracker: Build):
    with new_tracker(NOBODY, drain_seconds=0) as tracker:
        for step in range(100):
            tracker.log_metrics({"loss": step / 7}, step)
            assert tracker.flush(5)
            assert outbox_points(run_folder)["loss"][-1][::2] == (step, step / 7)


def test_a_flush_has_patience_with_a_writer_that_is_only_slow(run_folder: Path, new_tracker: Build):
    with new_tracker(NOBODY, drain_seconds=0) as tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
    outbox = TrackingFolder.of_run(run_folder).outbox
    long = b"".join(Event(number, 1, "tags", {"a": "b"}).encode() for number in range(100, 40_000))
    outbox.write_bytes(outbox.read_bytes() + long)  # takes a good part of a second to read again
    with new_tracker(NOBODY, drain_seconds=0) as tracker:
        tracker.log_metrics({"loss": 2.0}, 2)
        assert tracker.flush(0.01)
        assert [step for step, _, _ in outbox_points(run_folder)["loss"]] == [1, 2]


def test_a_folder_that_is_gone_for_a_while_loses_nothing(
    run_folder: Path, new_tracker: Build, caplog: pytest.LogCaptureFixture
):
    away = run_folder.with_name("away")
    with new_tracker(NOBODY, drain_seconds=0) as tracker:
        tracker.log_metrics({"loss": 0.0}, 0)
        assert tracker.flush(5)
        run_folder.rename(away)
        for step in range(1, 500):
            tracker.log_metrics({"loss": float(step)}, step)
        assert not tracker.flush(0.2)
        away.rename(run_folder)
        assert wait_for(lambda: tracker.flush(0.1))
    assert [step for step, _, _ in outbox_points(run_folder)["loss"]] == list(range(500))
    assert caplog.text.count("can't write") == 1


def test_a_folder_that_never_comes_back_ends_in_bounded_time_and_says_what_is_lost(
    run_folder: Path, new_tracker: Build, caplog: pytest.LogCaptureFixture
):
    with new_tracker(NOBODY, drain_seconds=0) as tracker:
        assert tracker.flush(5)
        run_folder.rename(run_folder.with_name("away"))
        tracker.log_metrics({"loss": 1.0}, 1)
        start = time.monotonic()
        tracker.finish("completed")
    assert time.monotonic() - start < 30
    assert "2 events could not be written" in caplog.text


def test_a_second_session_goes_on_in_the_same_outbox_and_run(run_folder: Path, new_tracker: Build):
    keys = set()
    for first, last in ((0, 10), (5, 15)):
        with new_tracker(NOBODY, drain_seconds=0) as tracker:
            for step in range(first, last):
                tracker.log_metrics({"loss": float(step)}, step)
        keys.add(UploadSettings.read(TrackingFolder.of_run(run_folder).settings).run_key)
    assert len(keys) == 1
    assert [step for step, _, _ in outbox_points(run_folder)["loss"]] == list(range(15))
    numbers = [event.sequence for event, _ in read_events(TrackingFolder.of_run(run_folder).outbox)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_logging_takes_microseconds(new_tracker: Build):
    metrics = {f"train/{n}": 0.5 for n in range(10)}
    with new_tracker(NOBODY, drain_seconds=0) as tracker:
        times = []
        for step in range(500):
            start = time.perf_counter()
            tracker.log_metrics(metrics, step)
            times.append(time.perf_counter() - start)
            time.sleep(0.0005)
    # A write to the disk would take longer; benchmarks/tracking.py measures it.
    assert sorted(times)[len(times) // 2] < 1e-3
