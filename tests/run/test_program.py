"""Every mistake of a command ends in one message, without a traceback, in a sweep as in a run."""

import json
import subprocess
import sys

import pytest
from composed import REPOSITORY
from hydra.errors import HydraException

from winnow.errors import ConfigError
from winnow.run.program import message_of, run_program

PARTS = ("train", "val")


@pytest.mark.parametrize(("arguments", "message"), [
    (["+sweep=lr_bs"], "ConfigError: +sweep=lr_bs is a search and this is a single run; start it with -m"),
    (["-m", "training.seed=1,2", "hydra.sweep.dir=basic"], "none is pruned, resumed or compared; add hydra/sweeper=winnow"),
    (["-m", "training.optimizer.lr=interval(0.1,0.2)"], "hydra/sweeper=winnow searches intervals"),
    (["-m", "+sweep=lr_bs", "hydra.sweeper.n_trials=0"], "ConfigError: hydra.sweeper.n_trials=0: input should be greater than 0"),
    (["-m", "+sweep=lr_bs", "hydra.sweep.dir=/proc/none"], "ConfigError: hydra.sweep.dir=/proc/none can't be made"),
    ([f"training.resume={'x' * 300}", "hydra.run.dir=new/run"], "xxx: File name too long"),
    (["hydra.run.dir=/proc/none/run"], "the run's folder or log can't be made: "),
    ([f"hydra.run.dir=new/{'x' * 300}/run"], "the run's folder or log can't be made: "),
    (["model.head_convs=abc", "hydra.run.dir=new/run"], "ConfigError: model.head_convs='abc': input should be a valid integer"),
    (["tracking=off", "data=coco", *(f"data.{part}.{key}=none" for part in PARTS for key in ("images", "annotations"))],
     "DataError: annotation file none cannot be read"),
    (["stage=ink/all", "model=inktrace", "data=ink_strokes", "model.num_heads=7", "hydra.run.dir=new/pipeline"],
     "ConfigError: stage=structural: "),
    (["-m", "+sweep=lr_bs", "hydra.sweeper.direction=[maximize,minimize]", "hydra/sweeper/pruner=none"],
     "a run of winnow's returns one number, its objective; name as many as there are directions"),
    (["-m", "+sweep=lr_bs", "hydra/sweeper/pruner=none", "hydra.sweeper.direction=[maximize,maximize]",
      "hydra.sweeper.metrics=[val/map,val/loss]"], "hydra.sweeper.direction=maximize of val/loss would search for the worst"),
    (["model=nope"], "Could not find 'model/nope'"), (["training.freeze=["], "no viable alternative at input '['"),
    (["training.max_epoch=3"], "Key 'max_epoch' is not in struct. Did you mean: 'max_epochs'?"),
])  # fmt: skip
def test_a_mistake_is_one_message(warm_program, tmp_path, arguments, message):
    printed = warm_program.run(tmp_path, *arguments, code=1)
    assert message in printed
    assert "Traceback" not in printed
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_all_that_stands_against_a_sweep_is_one_message(warm_program, tmp_path):
    mistakes = ["hydra/sweeper=winnow", "hydra/sweeper/sampler=cmaes", "hydra.sweeper.direction=maximize"]
    mistakes += ["hydra.sweep.subdir=same", "model.head_convs=choice(abc,1)", "hydra.sweeper.dry_run=true"]
    mistakes += ["hydra.sweeper.devices=[0,1]", "hydra.sweeper.n_jobs=3", "model=fcos_tiny,inktrace"]
    printed = warm_program.run(tmp_path, "-m", *mistakes, code=1)
    expected = [
        "CmaEsSampler needs what is not installed: pip install cmaes",
        "hydra.sweep.subdir=same is one folder for all",
        "choice: model.head_convs=abc: model.head_convs='abc': input should be",
        "choice: model=inktrace: model, data and evaluation must be of",
    ]
    for message in expected:
        assert message in printed
    assert "Traceback" not in printed


def test_a_refused_run_leaves_the_folder_that_was_there_before(warm_program, tmp_path):
    (tmp_path / "runs/empty").mkdir(parents=True)
    warm_program.run(tmp_path, "model.head_convs=abc", "hydra.run.dir=runs/empty", code=1)
    assert json.loads((tmp_path / "runs/empty/result.json").read_text())["status"] == "failed"
    warm_program.run(tmp_path, "model.head_convs=abc", "hydra.run.dir=runs/new", code=1)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["empty"]


def test_a_folder_of_another_study_is_not_written_to(warm_program, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/sweep.yaml").write_text("study_name: other\n")
    command = ["-m", "+sweep=lr_bs", "hydra.sweep.dir=mine", "hydra.sweeper.study_name=own"]
    printed = warm_program.run(tmp_path, *command, code=1)
    assert "mine holds the study 'other', and this one is 'own'; choose another hydra.sweep.dir" in printed
    assert (tmp_path / "mine/sweep.yaml").read_text() == "study_name: other\n"


def ended(body, **environment):
    program = f"from winnow.run.program import run_program\ndef main():\n    {body}\nrun_program(main)"
    environment = {"PYTHONPATH": str(REPOSITORY / "src"), **environment}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)


def test_ctrl_c_before_anything_was_saved_is_one_line():
    found = ended("raise KeyboardInterrupt")
    assert (found.returncode, found.stderr) == (130, "interrupted before anything was saved\n")


def test_an_error_of_the_program_keeps_its_traceback():
    found = ended("{}['x']")
    assert found.returncode == 1
    assert "Traceback" in found.stderr
    assert "KeyError: 'x'" in found.stderr


def test_tracebacks_are_shown_on_demand():
    found = ended(
        "raise HydraException('x')".replace("Hydra", "__import__('hydra').errors.Hydra"), HYDRA_FULL_ERROR="1"
    )
    assert "Traceback" in found.stderr


def test_children_get_the_environment_as_the_user_gave_it():
    body = "from winnow.run.program import environment_of_children as own; print(own().get('HYDRA_FULL_ERROR'))"
    assert ended(body).stdout == "None\n"
    assert ended(body, HYDRA_FULL_ERROR="1").stdout == "1\n"


def test_what_the_user_must_mend_has_a_message():
    assert message_of(ConfigError("x=1")) == "ConfigError: x=1"
    assert message_of(HydraException("y")) == "y"
    assert message_of(OSError("disk")) is None  # not where Hydra makes folders
    assert run_program(lambda: None) is None
