"""A tracked run's secrets: in no file of it, with its uploader all the same, and asked for where they are needed again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from guarded_server import files_with, watched_arguments
from tracking_parts import outbox_points, uploaders, wait_for

from winnow import masking
from winnow.commands.cli import main
from winnow.errors import WinnowError
from winnow.process import ProcessStamp
from winnow.tracking.folder import SECRETS, RunState, TrackingFolder, UploadSettings
from winnow.tracking.mlflow_tracker import MlflowTracker
from winnow.tracking.provenance import command_line
from winnow.tracking.sync import sync

Build = Callable[..., MlflowTracker]
SECRET = "Tr4cked-Word"  # no other test shows it in a command
ADDRESS = f"http://me:{SECRET}@127.0.0.1:9"


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(masking, "_words", {})
    monkeypatch.setattr(masking, "_looked_up", set())
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)


def settings_at(uri: str, experiment: str = "winnow") -> UploadSettings:
    return UploadSettings("key", 1000, ProcessStamp.this_process(), uri, experiment, "run")


def test_settings_are_written_without_secrets_and_an_uploader_gets_them_apart(tmp_path: Path):
    masking.remember_looked_up({"experiment": "detectors"})
    settings = settings_at(ADDRESS, "detectors")
    settings.write(tmp_path / "settings.json")
    read = UploadSettings.read(tmp_path / "settings.json")
    assert (read.uri, read.experiment, read.run_name) == ("http://me:***@127.0.0.1:9", "***", "run")
    assert read.lacks_secret
    whole = read.with_secrets(settings.secrets())
    assert (whole.uri, whole.experiment, whole.shown_uri) == (ADDRESS, "detectors", "http://me:***@127.0.0.1:9")
    assert not whole.lacks_secret
    whole.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "settings.json").read_text()


@pytest.mark.parametrize(("kept", "uri", "environment", "used", "shown"), [
    ("sqlite:///a.db", None, {}, "sqlite:///a.db", "sqlite:///a.db"),
    ("http://me:***@h", None, {}, "http://me:***@h", "http://me:***@h"),
    ("http://me:***@h", "http://me:pw@h", {}, "http://me:pw@h", "http://me:***@h"),
    ("http://me:***@h", "http://me:pw@other", {}, "http://me:pw@other", "http://me:***@other"),
    ("http://me:***@h", None, {"MLFLOW_TRACKING_URI": "http://me:pw@h"}, "http://me:pw@h", "http://me:***@h"),
    ("http://me:***@h", None, {"MLFLOW_TRACKING_URI": "http://me:pw@other"}, "http://me:***@h", "http://me:***@h"),
    ("http://me:***@h", None, {"MLFLOW_TRACKING_USERNAME": "me"}, "http://h", "http://me:***@h"),
    ("***", None, {"MLFLOW_TRACKING_URI": "http://h"}, "http://h", "***"),
    ("***", "sqlite:///b.db", {}, "sqlite:///b.db", "***"),
    ("http://me:old@h", None, {}, "http://me:old@h", "http://me:***@h"),  # written by an earlier version
])  # fmt: skip
def test_a_command_uses_what_it_is_given_or_finds_and_shows_what_is_recorded(kept, uri, environment, used, shown):
    found = settings_at(kept).usable_at(uri, None, environment)
    assert (found.uri, found.shown_uri, found.lacks_secret) == (used, shown, "***" in used)


def test_the_uploader_has_the_secret_and_no_file_or_argument_does(run_folder: Path, new_tracker: Build):
    with watched_arguments([SECRET]) as seen, new_tracker(ADDRESS, drain_seconds=0, tags={"note": ADDRESS}) as tracker:
        tracker.log_params({"tracking": {"uri": ADDRESS}, "note": f"?password={SECRET}"})
        tracker.set_tags({"winnow.command": f"train.py tracking.uri={ADDRESS}"})
        tracker.log_metrics({"loss": 1.0}, 1)
        (uploader,) = wait_for(lambda: uploaders(run_folder))
        assert json.loads(uploader.environ()[SECRETS])["uri"] == ADDRESS
        wait_for(lambda: "can't send" in TrackingFolder.of_run(run_folder).log.read_text())
    assert seen == set()
    assert files_with([SECRET], run_folder) == []
    assert "http://me:***@127.0.0.1:9" in TrackingFolder.of_run(run_folder).log.read_text()


def test_a_run_whose_secret_is_nowhere_keeps_its_outbox_and_says_how_to_send_it(
    run_folder: Path, new_tracker: Build, database_uri: str, caplog: pytest.LogCaptureFixture
):
    with new_tracker("***", drain_seconds=60) as tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
        assert tracker.flush()
        assert tracker.uploader_pid is None
    assert not TrackingFolder.of_run(run_folder).log.exists()  # no uploader was started
    (line,) = [text for text in caplog.messages if "its secret is neither" in text]
    assert f"`winnow sync {run_folder} --uri ADDRESS` sends" in line
    assert "\n" not in line
    assert list(outbox_points(run_folder)) == ["loss"]
    with pytest.raises(WinnowError, match=r"is tracked at \*\*\*, whose secret is not recorded: give --uri"):
        sync(run_folder)
    assert main(["sync", str(run_folder), "--uri", database_uri]) == 0
    assert RunState.read(TrackingFolder.of_run(run_folder).state).uri == "***"
    assert UploadSettings.read(TrackingFolder.of_run(run_folder).settings).uri == "***"
    assert sync(run_folder, uri=database_uri).sent == 0


def test_the_command_line_is_recorded_masked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.orig_argv", ["python", "train.py", f"tracking.uri={ADDRESS}"])
    assert command_line().endswith(" train.py tracking.uri=http://me:***@127.0.0.1:9")
