"""What every ``protocols.Tracker`` must keep to, as a suite of tests: nothing of it raises into training, or blocks it."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from winnow.protocols import Tracker

METRICS: dict[str, Any] = {
    "val/map": 0.5, "train/loss": math.nan, "lr/default": math.inf, "val/map_class/traffic light": -math.inf, "x=y:z|*?": 1.0,
    "": 2.0,
}  # fmt: skip


class TrackerContract:
    """Subclass it as ``Test…`` and give ``make_tracker``, for a server that is not there if it needs one."""

    seconds_per_event = 0.01
    """How long a call may usually take while training logs."""

    def make_tracker(self, folder: Path) -> Tracker:
        """Return a tracker of the run in ``folder``, which exists; one of the same folder goes on with the run."""
        raise NotImplementedError

    def test_nothing_that_is_logged_raises(self, tmp_path: Path) -> None:
        with self.make_tracker(tmp_path) as tracker:
            self._log_everything(tracker, tmp_path)
            assert tracker.flush() in (True, False)
            assert tracker.run_id is None or isinstance(tracker.run_id, str)
            tracker.finish("completed")

    def test_odd_values_do_not_raise(self, tmp_path: Path) -> None:
        with self.make_tracker(tmp_path) as tracker:
            odd: Any = {"text": "no number", "none": None, "list": [1, 2], "x" * 1000: 1.0}
            tracker.log_metrics(odd, 0)
            tracker.log_metrics({"train/loss": 1.0}, -1)
            tracker.log_metrics({}, 10**12)
            tracker.log_params({"nested": {"deep": [{"a": object()}]}, "long": "y" * 10_000, "none": None})
            tracker.set_tags({"long": "z" * 10_000, "": "", "ключ": "значение"})

    def test_steps_may_come_again_after_a_resume(self, tmp_path: Path) -> None:
        for steps in (range(4), range(2, 6)):
            with self.make_tracker(tmp_path) as tracker:
                for step in steps:
                    tracker.log_metrics({"train/loss": float(step)}, step)
                tracker.finish("interrupted")

    def test_logging_outside_of_the_run_does_not_raise(self, tmp_path: Path) -> None:
        tracker = self.make_tracker(tmp_path)
        self._log_everything(tracker, tmp_path)
        with tracker:
            tracker.finish("failed")
            self._log_everything(tracker, tmp_path)
            tracker.finish("completed")
        self._log_everything(tracker, tmp_path)
        assert tracker.flush() in (True, False)

    def test_a_folder_that_goes_away_does_not_raise(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        with self.make_tracker(folder) as tracker:
            tracker.log_metrics({"train/loss": 1.0}, 1)
            tracker.flush()
            shutil.rmtree(folder, ignore_errors=True)
            folder.write_text("a file in the way")
            self._log_everything(tracker, tmp_path)
            assert tracker.flush() in (True, False)

    def test_an_error_of_the_training_is_passed_on_as_it_is(self, tmp_path: Path) -> None:
        error, caught = RuntimeError("of the training"), None
        try:
            with self.make_tracker(tmp_path) as tracker:
                tracker.log_metrics({"train/loss": 1.0}, 1)
                raise error
        except RuntimeError as other:
            caught = other
        assert caught is error, f"the tracker raised {caught!r} instead of the error of the training"

    def test_logging_does_not_hold_up_the_training(self, tmp_path: Path) -> None:
        with self.make_tracker(tmp_path) as tracker:
            seconds = []
            for step in range(200):
                began = time.perf_counter()
                tracker.log_metrics({f"train/loss_{number}": float(step) for number in range(10)}, step)
                seconds.append(time.perf_counter() - began)
        usual = statistics.median(seconds)
        assert usual < self.seconds_per_event, f"a call of log_metrics takes {usual:.4f} s"

    def _log_everything(self, tracker: Tracker, folder: Path) -> None:
        present = folder / "picture.txt"
        present.write_text("here")
        tracker.log_params({"training": {"lr": 0.1, "steps": [1, 2]}, "model": None})
        tracker.log_metrics(METRICS, 1)
        tracker.set_tags({"status": "running"})
        tracker.log_artifact(present, "pictures")
        tracker.log_artifact(folder / "missing.png")
        tracker.log_artifact(folder, "a folder")
