"""TensorBoard files, read back by TensorBoard itself: beside any tracker, each step once, and no trouble for training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from composed import compose_plain
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tracking_parts import wait_for

from winnow.errors import ConfigError
from winnow.run.tracker import choose_tracker
from winnow.tracking.epoch_table import EpochTable
from winnow.tracking.null_tracker import NullTracker
from winnow.tracking.tensorboard import FOLDER, TensorBoardTracker


def shown(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return metric → (step, value) as TensorBoard shows it."""
    accumulator = EventAccumulator(str(run / FOLDER), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    tags = accumulator.Tags()
    assert not tags["tensors"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags["scalars"]}


def tracker_of(run: Path) -> TensorBoardTracker:
    return TensorBoardTracker(NullTracker(run), run)


def test_every_point_is_shown(run_folder: Path):
    with tracker_of(run_folder) as tracker:
        for step in range(1, 6):
            tracker.log_metrics({"train/loss": 1 / step, "val/map": step / 8}, step)
    points = shown(run_folder)
    assert points["train/loss"] == [(step, pytest.approx(1 / step)) for step in range(1, 6)]
    assert points["val/map"] == [(step, step / 8) for step in range(1, 6)]


def test_a_second_session_goes_on_and_replays_nothing(run_folder: Path):
    for first, last in ((0, 10), (5, 15)):
        with tracker_of(run_folder) as tracker:
            for step in range(first, last):
                tracker.log_metrics({"loss": float(step)}, step)
    assert shown(run_folder) == {"loss": [(step, float(step)) for step in range(15)]}


def test_a_file_with_flipped_bits_does_not_end_the_writing(run_folder: Path):
    for step in (1, 2):
        with tracker_of(run_folder) as tracker:
            tracker.log_metrics({"loss": float(step)}, step)
        if step == 1:
            (file,) = (run_folder / FOLDER).iterdir()
            content = bytearray(file.read_bytes())
            content[-16:-4] = b"\xff" * 12
            file.write_bytes(content)
    assert shown(run_folder)["loss"] == [(2, 2.0)]


def test_a_torn_end_loses_nothing_that_was_whole(run_folder: Path):
    with tracker_of(run_folder) as tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
        assert tracker.flush()
        tracker.log_metrics({"loss": 2.0}, 2)
    (file,) = (run_folder / FOLDER).iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    with tracker_of(run_folder) as tracker:
        for step in (1, 2, 3):
            tracker.log_metrics({"loss": float(step)}, step)
    assert shown(run_folder) == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0)]}


KILLED = """
import os, sys
from pathlib import Path
from winnow.tracking.null_tracker import NullTracker
from winnow.tracking.tensorboard import TensorBoardTracker
with TensorBoardTracker(NullTracker(sys.argv[1]), Path(sys.argv[1])) as tracker:
    for step in range(int(sys.argv[2]), 200):
        tracker.log_metrics({"loss": float(step)}, step)
        if step == int(sys.argv[3]):
            tracker.flush()
            os.kill(os.getpid(), 9)
"""


def test_killed_and_resumed_shows_each_step_once(run_folder: Path):
    for first, killed_at in ((0, 60), (40, 150), (140, 1000)):
        ended = subprocess.run([sys.executable, "-c", KILLED, str(run_folder), str(first), str(killed_at)])
        assert ended.returncode == (0 if killed_at > 200 else -signal.SIGKILL)
    assert shown(run_folder) == {"loss": [(step, float(step)) for step in range(200)]}


def test_a_folder_that_is_gone_for_a_while_loses_nothing_of_what_comes_later(
    run_folder: Path, caplog: pytest.LogCaptureFixture
):
    away = run_folder.with_name("away")
    with tracker_of(run_folder) as tracker:
        tracker.log_metrics({"loss": 0.0}, 0)
        assert tracker.flush()
        run_folder.rename(away)
        start = time.perf_counter()
        for step in range(1, 200):
            tracker.log_metrics({"loss": float(step)}, step)
        assert time.perf_counter() - start < 5  # each write that fails is followed by a pause
        wait_for(lambda: "can't write" in caplog.text)
        away.rename(run_folder)
        assert wait_for(tracker.flush)
    assert shown(run_folder) == {"loss": [(step, float(step)) for step in range(200)]}
    assert caplog.text.count("can't write") == 1


def test_a_read_only_folder_is_told_once_and_does_not_raise(run_folder: Path, caplog: pytest.LogCaptureFixture):
    (run_folder / FOLDER).write_text("a file where the folder should be")
    with tracker_of(run_folder) as tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
        wait_for(lambda: "can't write" in caplog.text)
        tracker._thread.stop(0.1)
    assert "1 events could not be written" in caplog.text


def test_words_are_left_to_the_tracker_inside(run_folder: Path):
    with tracker_of(run_folder) as tracker:
        tracker.log_metrics({"word": "x", "loss": 1.0}, 1)  # type: ignore[dict-item]
    assert shown(run_folder) == {"loss": [(1, 1.0)]}


@pytest.mark.parametrize("kind", ["mlflow", "off"])
def test_the_key_holds_for_every_tracker(run_folder: Path, kind: str):
    config = compose_plain(f"tracking={kind}")
    plain = choose_tracker(config, run_folder)
    assert not isinstance(plain, TensorBoardTracker)
    config["tracking"]["tensorboard"] = True
    both = choose_tracker(config, run_folder)
    assert isinstance(both, TensorBoardTracker)
    assert type(both._inner) is type(plain)


def test_a_run_whose_config_is_older_than_the_key_has_none(run_folder: Path):
    config = compose_plain("tracking=off")
    del config["tracking"]["tensorboard"]
    tracker = choose_tracker(config, run_folder)
    assert isinstance(tracker, EpochTable)
    assert isinstance(tracker._inner, NullTracker)


def test_a_word_is_no_switch(run_folder: Path):
    config = compose_plain("tracking=off")
    config["tracking"]["tensorboard"] = "yes"
    with pytest.raises(ConfigError, match="tracking.tensorboard='yes': must be true or false"):
        choose_tracker(config, run_folder)


CHOOSE = """
import sys
if sys.argv[2] == "missing":
    sys.modules["tensorboard"] = None  # what Python itself keeps of a package that can't be imported
from pathlib import Path
from winnow.run.tracker import choose_tracker
node = {"_target_": "winnow.tracking.null_tracker.NullTracker", "tensorboard": sys.argv[3] == "on"}
try:
    choose_tracker({"tracking": node, "trusted_targets": []}, Path(sys.argv[1]))
finally:
    print("tensorboard.compat" in sys.modules)
"""


@pytest.mark.parametrize(("package", "switch", "code", "words"), [
    ("missing", "on", 1, "ConfigError: tracking.tensorboard=true needs the package tensorboard"),
    ("there", "off", 0, "False"),
    ("there", "on", 0, "True"),
])  # fmt: skip
def test_the_package_is_needed_and_imported_only_where_it_is_asked_for(run_folder: Path, package, switch, code, words):
    command = [sys.executable, "-c", CHOOSE, str(run_folder), package, switch]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HYDRA_FULL_ERROR": "0"})
    assert ended.returncode == code
    assert words in ended.stdout + ended.stderr
