"""Every tracker of winnow keeps the contract of ``protocols.Tracker``. None here reaches a server: tests/tracking has one."""

import pytest

from winnow.testing.tracker import TrackerContract
from winnow.tracking.epoch_table import EpochTable
from winnow.tracking.mlflow_tracker import MlflowTracker
from winnow.tracking.null_tracker import NullTracker
from winnow.tracking.tensorboard import TensorBoardTracker


class TestNull(TrackerContract):
    def make_tracker(self, folder):
        return NullTracker(folder)


class TestMlflow(TrackerContract):
    @pytest.fixture(autouse=True)
    def _no_uploader(self, monkeypatch):
        monkeypatch.setattr("winnow.tracking.launcher.UploaderProcess._start", lambda self: None)

    def make_tracker(self, folder):
        return MlflowTracker(
            folder, uri="http://127.0.0.1:9", experiment="contract", run_name=None, parent_run_id=None, tags={}, drain_seconds=0,
            system_metrics_seconds=None, log_checkpoints=True,
        )  # fmt: skip


class TestTensorBoard(TrackerContract):
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch):
        for name in ("FLUSH_SECONDS", "STOP_SECONDS"):
            monkeypatch.setattr(f"winnow.tracking.tensorboard.{name}", 0.5)

    def make_tracker(self, folder):
        return TensorBoardTracker(NullTracker(folder), folder)


class TestEpochTable(TrackerContract):
    def make_tracker(self, folder):
        return EpochTable(NullTracker(folder), folder)
