"""A family from a folder outside of the repository: the files and commands of docs/your_family.md, taken out of it and run."""

import json
import re
import shlex

import numpy as np
import pytest
import torch
from composed import REPOSITORY
from PIL import Image
from sweep_parts import table

from winnow.commands.cli import main

PAGE = (REPOSITORY / "docs" / "your_family.md").read_text()
BLOCKS = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = re.search(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[1].splitlines()
QUICK = ["tracking=off", "training.batch_size=8", "training.num_workers=0", "training.scheduler.warmup_steps=2"]


def write_pictures(folder, num):
    rng = np.random.default_rng(num)
    folder.mkdir(parents=True)
    points = {}
    for index in range(num):
        column, row = rng.integers(4, 28, 2)
        pixels = np.zeros((32, 32), dtype=np.uint8)
        pixels[row - 2 : row + 3, column - 2 : column + 3] = 255
        Image.fromarray(pixels).save(folder / f"{index}.png")
        points[f"{index}.png"] = [float(column) / 31, float(row) / 31]
    (folder / "points.json").write_text(json.dumps(points))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Return a folder with the family, its YAML and its data, as the page's reader has it."""
    folder = tmp_path_factory.mktemp("outside")
    for name, text in BLOCKS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_pictures(folder / "pictures" / "train", 24)
    write_pictures(folder / "pictures" / "val", 8)
    return folder


def arguments(number, *added):
    """Return those of the page's command ``number``, after the program's name."""
    program, *rest = shlex.split(COMMANDS[number])
    return [*(rest[1:] if program == "python" else rest), *added]


def epoch_of(folder):
    return torch.load(folder / "checkpoints" / "last.pth", weights_only=False)["epoch"]


def test_it_trains_resumes_and_sweeps(workplace, warm_program):
    environment = {"PYTHONPATH": str(workplace)}
    printed = warm_program.run(workplace, *arguments(2, *QUICK), **environment)
    assert "hit_rate" in printed
    run = workplace / "outputs" / "marks"
    assert epoch_of(run) == 2
    assert list(run.rglob("val_marks.png"))
    warm_program.run(workplace, *arguments(3, *QUICK), **environment)
    assert epoch_of(run) == 3
    swept = ["hydra.sweeper.plots=false", "hydra.sweeper.devices=null", "hydra.sweeper.n_jobs=1"]
    warm_program.run(workplace, *arguments(4, *QUICK, *swept), **environment)
    assert [row["status"] for row in table(workplace / "multirun", "marks")] == ["completed", "completed"]


def test_another_familys_data_is_refused(workplace, warm_program):
    mixed = [argument for argument in arguments(2, *QUICK) if not argument.startswith(("data", "hydra.run.dir"))]
    printed = warm_program.run(
        workplace, *mixed, "data=digits", "hydra.run.dir=outputs/mixed", code=1, PYTHONPATH=str(workplace)
    )
    assert "data=digits_data is of detection" in printed
    assert "model=mark_model is of marks" in printed


def test_its_data_is_checked_by_its_own_check(workplace, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.chdir(REPOSITORY)
    named = {"own": str(workplace / "own"), "data.root=pictures": f"data.root={workplace / 'pictures'}"}
    check = [named.get(argument, argument) for argument in arguments(1)]
    assert main(check) == 0
    assert "val: 8 images, 8 annotations read" in capsys.readouterr().out
    (workplace / "pictures" / "val" / "3.png").write_bytes(b"")
    assert main(check) == 1
    assert capsys.readouterr().out.splitlines()[0].split("\t")[:3] == ["val", "unreadable image", "3.png"]
