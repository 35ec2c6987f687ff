"""winnow as it is installed elsewhere: the wheel, a fresh environment, a project of one's own in a folder of its own."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from composed import REPOSITORY

from winnow.commands.cli import main
from winnow.commands.new import PROJECT
from winnow.config.compose import compose_command_line
from winnow.config.project import SHIPPED, project_conf

QUICK = ["tracking=off", "data.num_train=8", "data.num_val=4", "training.max_epochs=1", "training.num_workers=0",
         "training.batch_size=4"]  # fmt: skip


def files_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for place, _, names in os.walk(folder, followlinks=True)
        for path in (Path(place) / name for name in names if not name.endswith(".pyc"))
    }


def test_a_new_project_holds_what_it_says_and_composes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mine"]) == 0
    written = files_below(tmp_path / "mine")
    assert written == files_below(PROJECT) | {"conf/sweep/mine.yaml": written["sweeps/mine.yaml"]}
    monkeypatch.chdir(tmp_path / "mine")
    config = compose_command_line(None, []).config
    assert config["model"]["_target_"] == "mine.model.build"
    assert config["data"]["num_train"] == 400
    assert config["trusted_targets"] == ["mine"]
    assert compose_command_line(None, ["model=fcos_tiny"]).config["model"]["_target_"].endswith("fcos_tiny")


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["new", str(tmp_path)]) == 2
    assert "is not empty; name a folder that is new" in capsys.readouterr().err
    assert main(["new", str(tmp_path / "notes.txt")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_where_there_is_no_project_the_configs_are_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_conf() == SHIPPED
    shipped = compose_command_line(None, ["+sweep=lr_bs"]).config
    monkeypatch.chdir(REPOSITORY)
    assert project_conf() == str(REPOSITORY / "conf")
    assert compose_command_line(None, ["+sweep=lr_bs"]).config == shipped


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a fresh environment that holds winnow's wheel, and beside it, not winnow itself, the packages that winnow needs."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
        source,
    ]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("winnow_train-*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        wheel,
    ]
    subprocess.run(install, check=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "beside.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "env" / "bin"


@pytest.mark.slow
@pytest.mark.promise
def test_the_wheel_is_whole(installed, tmp_path):
    """Everything below runs in an environment that has never seen the repository."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HYDRA", "MLFLOW"))}

    def run(folder, *command):
        done = subprocess.run(
            [installed / command[0], *command[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    where = run(
        tmp_path, "python", "-c", "import winnow, hydra_plugins.winnow_sweeper as s; print(winnow.__path__, s.__path__)"
    )
    assert str(REPOSITORY) not in where
    assert run(tmp_path, "winnow", "--version") == run(tmp_path, "python", "-m", "winnow", "--version")
    groups = run(tmp_path, "winnow", "train", "--help")
    for group in ("sweep", "experiment", "data", "model"):
        for name in (path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml")):
            assert name in groups, f"{group}={name}"
    run(tmp_path, "winnow", "train", *QUICK, "hydra.run.dir=plain", "training.num_ranks=2")
    assert json.loads((tmp_path / "plain" / "result.json").read_text())["status"] == "completed"

    run(tmp_path, "winnow", "new", "project")
    project = tmp_path / "project"
    run(project, "winnow", "data", "check", "data=mine", "data.num_train=8", "data.num_val=4")
    run(project, "python", "train.py", *QUICK, "hydra.run.dir=own")
    run(project, "winnow", "train", "training.resume=own/checkpoints/last.pth", "training.max_epochs=2")
    assert "epoch 2/2" in (project / "own" / "train.log").read_text()
    run(
        project, "winnow", "train", "-m", "+sweep=mine", *QUICK, "hydra.sweeper.n_trials=2", "hydra.sweeper.pruner=null"
    )
    assert run(project, "winnow", "study", "multirun/mine").count("completed") >= 2
    (project / "train.py").unlink()
    run(project, "winnow", "promote", "multirun/mine", "--top", "1")
    assert (project / "multirun" / "mine-promoted" / "0" / "result.json").exists()
