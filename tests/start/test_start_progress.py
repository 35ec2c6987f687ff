import signal
import subprocess
import sys
import time

import pytest

from winnow.errors import ConfigError
from winnow.start.progress import Measured, Progress, StepFailedError, run_step
from winnow.start.steps import Step


def test_what_is_done_is_kept(tmp_path):
    progress = Progress.read(tmp_path, tmp_path / "cells", ["data=coco"])
    assert progress.done == {}
    progress.done["check"] = 3.5
    progress.measured = Measured(12.0, {"steps": []})
    progress.write(tmp_path)
    again = Progress.read(tmp_path, tmp_path / "cells", ["data=coco"])
    assert again == progress


@pytest.mark.parametrize(("source", "overrides", "message"), [
    ("others", ["data=coco"], "begun with another data set"),
    ("cells", ["data=voc"], "another overrides, data=coco and not data=voc"),
])  # fmt: skip
def test_a_folder_of_another_start_is_refused(tmp_path, source, overrides, message):
    Progress.read(tmp_path, tmp_path / "cells", ["data=coco"]).write(tmp_path)
    with pytest.raises(ConfigError, match=message):
        Progress.read(tmp_path, tmp_path / source, overrides)


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "start.json").write_text('{"source": 3}')
    with pytest.raises(ConfigError, match=r"start.json is damaged"):
        Progress.read(tmp_path, tmp_path, [])


def test_a_step_that_ends_with_problems_is_an_error_unless_they_are_accepted(tmp_path, capfd):
    step = Step("check", ("data", "check", "--images", "."))  # wrong usage: 2
    with pytest.raises(StepFailedError, match="check ended with exit code 2"):
        run_step(step)
    assert run_step(step, accepted=(2,)) > 0
    assert "--images and --annotations go together" in capfd.readouterr().err


WAITING = """
import signal, subprocess, sys, time
from winnow.start import progress, steps
class Slow(steps.Step):
    command = [sys.executable, "-c", '''
import subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"])
try:
    inner.wait()
except KeyboardInterrupt:
    inner.wait()
    time.sleep(0.2)
    print("saved", flush=True)
    sys.exit(75)
''']
try:
    progress.run_step(Slow("search", ()))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_reaches_all_that_runs_and_is_waited_for(number):
    program = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert program.stdout.readline() == "ready\n"
    time.sleep(0.1)
    program.send_signal(number)
    assert program.communicate(timeout=30)[0] == "saved\nstopped\n"
