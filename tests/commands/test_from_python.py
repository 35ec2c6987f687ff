"""winnow's commands from a notebook or a script, and the stored detections of a run."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import winnow
from winnow.errors import ConfigError
from winnow.families.detection.diagnosis import Diagnosis
from winnow.families.detection.metrics.image_result import ImageResult, to_arrays


def test_a_command_line_is_composed_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert winnow.compose("training=smoke", "training.batch_size=3")["training"]["batch_size"] == 3
    with pytest.raises(ConfigError, match="nosuch"):
        winnow.compose("model=nosuch")
    assert list(tmp_path.iterdir()) == []


def test_a_command_prints_and_its_failure_is_raised_or_printed(tmp_path, capfd):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        winnow.call("study", tmp_path)
    assert failed.value.returncode == 2
    assert "is no study" in capfd.readouterr().out
    winnow.call("study", tmp_path, check=False)
    assert capfd.readouterr().out.splitlines()[-1] == "exit code 2"


@pytest.mark.slow
@pytest.mark.promise
def test_an_interrupted_training_saves_before_it_ends(tmp_path):
    quick = [
        "data.num_train=32",
        "data.num_val=8",
        "data.image_size=64",
        "training.batch_size=4",
        "training.num_workers=0",
    ]
    arguments = ["train", *quick, "training.max_epochs=1000", "tracking=off", "hydra.run.dir=run"]
    # Where the tests run in the background of a shell, SIGINT is ignored, and by its children too.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = [sys.executable, "-u", "-c", f"{hears}; import winnow; winnow.call(*{arguments!r})"]
    # In a session of its own, as a notebook's kernel; the signal goes to the group, as a notebook sends it.
    with subprocess.Popen(script, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        lines = iter(process.stdout.readline, "")
        assert any("epoch " in line for line in lines)
        os.killpg(process.pid, signal.SIGINT)
        rest = list(lines)
    assert any("training.resume" in line for line in rest)
    assert process.returncode != 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "run" / "checkpoints" / "last.pth").exists()


def test_stored_detections_are_judged_without_model_and_data(tmp_path):
    box, none = np.array([[1.0, 1.0, 8.0, 8.0]]), np.zeros(0)
    hit = ImageResult(
        7, (32, 32), box, np.array([0]), np.array([64.0]), np.array([False]), box, np.array([0.9]), np.array([0])
    )
    missed = hit._replace(image_id=8, boxes=np.zeros((0, 4)), scores=none, labels=none.astype(int))
    with pytest.raises(ConfigError, match=r"val_detections.npz does not exist"):
        winnow.diagnose(tmp_path)
    np.savez(tmp_path / "val_detections.npz", classes=np.array(["cell"]), **to_arrays([hit, missed]))
    diagnosis = winnow.diagnose(tmp_path)
    assert diagnosis.class_names == ["cell"]
    assert diagnosis.ap(0) == Diagnosis([hit, missed], ["cell"]).ap(0)
    assert [(len(one.hits), len(one.missed)) for one in diagnosis.judged()] == [(1, 0), (0, 1)]
    np.savez(tmp_path / "val_detections.npz", lines=np.zeros(3))
    with pytest.raises(ConfigError, match="holds no detections of boxes"):
        winnow.diagnose(tmp_path)
