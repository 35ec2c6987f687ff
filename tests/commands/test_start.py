"""``winnow start`` from a folder to a trained model, and what it refuses before any time is spent."""

import json
import signal
import subprocess
import sys
import threading

import pytest
from PIL import Image

from winnow.commands.cli import main

SMALL = [
    "data.image_size=32", "training.resize_schedule=null", "training.max_epochs=1", "training.num_workers=0", "report=false",
    "data.cache=null",
]  # fmt: skip


def write_set(folder, **counts):
    """Write COCO JSON with so many images in each split, each with one box on it."""
    (folder / "annotations").mkdir(parents=True)
    for split, count in counts.items():
        (folder / "images" / split).mkdir(parents=True)
        images = [{"id": n, "file_name": f"{n}.png", "width": 32, "height": 32} for n in range(count)]
        boxes = [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
            for n in range(count)
        ]
        for n in range(count):
            picture = Image.new("RGB", (32, 32), (10 * n, len(split), 0))
            picture.paste((255, 255, 255), (4, 4, 24, 24))
            picture.save(folder / "images" / split / f"{n}.png")
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def test_without_a_terminal_it_takes_no_step_unless_it_need_not_ask(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["start", str(write_set(tmp_path / "cells", train=8, val=2))]) == 2
    assert "no terminal to ask at; --yes takes all steps" in capsys.readouterr().err
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize(("counts", "message"), [
    ({}, "cells"), ({"train": 1, "val": 2}, "has 1 images"), ({"train": 9}, "has no val split"),
])  # fmt: skip
def test_what_can_t_be_trained_ends_in_one_line_and_leaves_nothing(tmp_path, capsys, monkeypatch, counts, message):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "cells", **counts)
    assert main(["start", "cells", "--yes"]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert not (tmp_path / "start").exists()


def test_a_weights_file_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["start", str(tmp_path), "--yes", "--weights", "no.pth"]) == 2
    assert "--weights no.pth: there is no such file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.promise
def test_it_goes_on_where_it_was_stopped_and_ends_with_a_model(tmp_path):
    write_set(tmp_path / "cells", train=8, val=4)
    command = [sys.executable, "-m", "winnow", "start", "cells", "--yes", *SMALL]
    before = []
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        watchdog = threading.Timer(900, program.kill)
        watchdog.start()
        for line in program.stdout:
            before.append(line)
            if "2/12:" in line:
                program.send_signal(signal.SIGTERM)
        watchdog.cancel()
    assert program.returncode == 75, "".join(before)
    assert before[-1] == "stopped; the same command goes on from here\n"
    assert "in all about" in "".join(before)

    after = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert after.returncode == 0, after.stdout + after.stderr
    assert after.stdout.count("done before, in") == 3  # describe, check and preflight
    assert "measuring" not in after.stdout
    assert "val/map 0." in after.stdout
    results = sorted((tmp_path / "start/cells/search").glob("*/result.json"))
    assert len(results) == 12
    (model,) = (tmp_path / "start/cells/search-promoted").glob("0/result.json")
    assert json.loads(model.read_text())["status"] == "completed"
    assert f"in start/cells/search-promoted/{model.parent.name}" in after.stdout
