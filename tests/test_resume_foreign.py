"""``training.resume`` and ``training.init_from`` of the whole program with files that winnow did not write."""

import json

import pytest
import torch
import yaml
from foreign_files import Bomb, prefixed
from killed_parts import TINY, TRUST, last

from winnow.checkpoints.file import read_checkpoint


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def other(warm_program, workplace):
    """Return a file of two epochs named and laid out as Lightning's, which holds a run of ours; Hydra wants quotes around its
    ``=``."""
    warm_program.run(workplace, *TINY, "training.max_epochs=2", "hydra.run.dir=first")
    saved = read_checkpoint(workplace / "first/checkpoints/last.pth")
    moments = saved["optimizer_state_dict"]
    groups = [{key: value for key, value in group.items() if key != "tensors"} for group in moments["param_groups"]]
    done = {"ready": 2, "completed": 1, "started": 2, "processed": 2}
    path = workplace / "lightning_logs/version_0/checkpoints/epoch=1.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({
        "epoch": 1, "global_step": 6, "pytorch-lightning_version": "2.6.6",
        "state_dict": prefixed("model.", saved["model_state_dict"]), "optimizer_states": [{**moments, "param_groups": groups}],
        "lr_schedulers": [], "loops": {"fit_loop": {"epoch_progress": {"total": done, "current": done}}},
        "hyper_parameters": {"lr": 0.5},
    }, path)  # fmt: skip
    return path


def test_a_foreign_file_is_gone_on_from_in_a_folder_of_its_own(warm_program, workplace, other):
    resume = [f'training.resume="{other}"', "training.max_epochs=3", "hydra.run.dir=new"]
    printed = warm_program.run(workplace, *TINY, *resume)
    assert "restored: the weights" in printed
    assert "the optimizer's moments" in printed
    assert "epoch and step: 2 finished epochs, step 6" in printed
    assert "missing: scheduler" in printed
    assert "training.optimizer.lr: 0.5 in the file, 0.003 here" in printed
    result = json.loads((workplace / "new/result.json").read_text())
    assert (result["status"], result["epochs"], result["steps"]) == ("completed", 3, 9)
    assert [path.name for path in other.parent.iterdir()] == ["epoch=1.ckpt"]
    assert yaml.safe_load((workplace / "new/config.yaml").read_text())["training"]["resume"] is None
    assert last(workplace / "new")["metadata"]["resumed_from"][0]["path"] == str(other)
    refused = warm_program.run(workplace, *TINY, *resume, code=1)
    assert "already holds a run" in refused
    again = warm_program.run(workplace, "training.resume=new/checkpoints/last.pth", TRUST, "training.max_epochs=4")
    assert "NOT exactly" not in again
    assert [entry["epoch"] for entry in last(workplace / "new")["metadata"]["resumed_from"]] == [2, 3]


def test_without_a_folder_named_it_gets_a_fresh_one(warm_program, workplace, other):
    warm_program.run(workplace, *TINY, f'training.resume="{other}"', "training.max_epochs=3")
    assert len(list(workplace.glob("outputs/*/*/checkpoints/last.pth"))) == 1


@pytest.mark.promise
def test_many_ranks_go_on_from_a_foreign_file_together(warm_program, workplace, other):
    resume = [f'training.resume="{other}"', "training.max_epochs=3", "training.num_ranks=2", "training.batch_size=2"]
    printed = warm_program.run(workplace, *TINY, *resume, "hydra.run.dir=ranks")
    assert printed.count("NOT exactly the run") == 1
    assert json.loads((workplace / "ranks/result.json").read_text())["steps"] == 9


def test_another_model_is_refused_before_anything_is_written(warm_program, workplace, other):
    resume = [f'training.resume="{other}"', "training.max_epochs=3", "model.head_channels=64"]
    error = warm_program.run(workplace, *TINY, *resume, "hydra.run.dir=wrong", code=1)
    assert "CheckpointError: " in error
    assert "holds the weights of another model" in error
    assert "Traceback" not in error
    assert not (workplace / "wrong/checkpoints").exists()


@pytest.mark.parametrize("key", ["resume", "init_from"])
def test_code_in_a_file_is_refused_and_does_not_run(warm_program, workplace, key):
    torch.save({"model": {"w": torch.ones(1)}, "extra": Bomb()}, workplace / "bomb.pth")
    error = warm_program.run(workplace, *TINY, f"training.{key}=bomb.pth", f"hydra.run.dir=bomb_{key}", code=1)
    assert "it names posix.mkdir, and to read that means to run code, which is never done" in error
    assert "Traceback" not in error
    assert not (workplace / "exploded").exists()


def test_its_weights_are_a_start(warm_program, workplace, other):
    start = [f'training.init_from="{other}"', "training.max_epochs=1", "hydra.run.dir=warm"]
    printed = warm_program.run(workplace, *TINY, *start)
    assert "'model.' taken away from" in printed
    assert json.loads((workplace / "warm/result.json").read_text())["epochs"] == 1
