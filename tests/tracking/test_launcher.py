"""The uploader's process is started, and started again, by the training's side; what it does is tested in test_uploader."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tracking_parts import wait_for

from winnow.process import ProcessStamp
from winnow.tracking.folder import TrackingFolder, UploadSettings
from winnow.tracking.launcher import ALL_SENT, RUN_DELETED, UploaderProcess
from winnow.tracking.spawned import Spawned

Start = Callable[[str], UploaderProcess]


@pytest.fixture
def start(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start an uploader that does nothing but what it is told."""
    started: list[Spawned] = []

    def start(program: str) -> UploaderProcess:
        def spawn(_: UploaderProcess) -> Spawned:
            command = [sys.executable, "-S", "-c", program]
            started.append(Spawned(command, dict(os.environ), run_folder / "log"))
            return started[-1]

        monkeypatch.setattr(UploaderProcess, "_start", spawn)
        settings = UploadSettings("key", 1000, ProcessStamp.this_process(), "sqlite:///unused.db", "winnow", "run")
        process = UploaderProcess(TrackingFolder.of_run(run_folder), settings)
        process.keep_alive()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


def test_one_that_is_killed_is_started_again(start: Start, caplog: pytest.LogCaptureFixture):
    uploader = start("import time; time.sleep(600)")
    first = uploader.pid
    assert first is not None
    uploader.keep_alive()
    assert uploader.pid == first
    os.kill(first, signal.SIGKILL)

    def is_another() -> bool:
        uploader.keep_alive()
        return uploader.pid not in (first, None)

    wait_for(is_another)
    assert "the tracking uploader ended with code -9" in caplog.text


@pytest.mark.parametrize(
    ("code", "words"), [(ALL_SENT, ""), (RUN_DELETED, "the run was deleted on the tracking server")]
)
def test_one_with_nothing_left_to_do_is_not(start: Start, caplog: pytest.LogCaptureFixture, code: int, words: str):
    uploader = start(f"raise SystemExit({code})")
    assert uploader.pid is not None

    def has_ended() -> bool:
        uploader.keep_alive()
        return uploader.pid is None

    wait_for(has_ended)
    uploader._next_start = 0.0
    uploader.keep_alive()
    assert uploader.pid is None
    assert "starting it again" not in caplog.text
    assert words in caplog.text
