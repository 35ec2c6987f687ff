"""The whole program with a frozen language model in a map model: begun, resumed, tried, and told from shapes alone."""

import json
import shutil

import pytest
import torch
from composed import REPOSITORY
from map_language_parts import random_llm, save_folder

from winnow.checkpoints.file import read_checkpoint
from winnow.commands.cli import main

FROZEN = [
    "model=map_qformer_tiny", "data=map_synthetic", "data.num_train=4", "data.num_val=2", "data.image_size=32",
    "data.num_points=6", "model.width=32", "model.num_instances=6", "model.decoder.num_layers=1", "model.qformer.width=32",
    "model.llm=frozen", "model.prompt=draw", "training.batch_size=2", "training.max_epochs=2", "training.num_workers=0",
    "training.device=cpu", "training.amp=off", "tracking=off",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_folder(random_llm(), tmp_path_factory.mktemp("language") / "llm")


def test_checkpoints_name_the_language_model_and_a_run_goes_on_bit_by_bit(warm_program, folder, tmp_path):
    arguments = [*FROZEN, f"model.llm_path={folder}", "model.activation_checkpointing=true", "model.bypass=false"]
    warm_program.run(tmp_path, *arguments, "training.save_interval=1", "hydra.run.dir=whole")
    whole = read_checkpoint(tmp_path / "whole/checkpoints/last.pth")
    for weights in (whole["model_state_dict"], whole["training_state_dict"], whole["ema_state_dict"]["weights"]):
        assert not any(name.startswith("language.llm.") for name in weights)
        assert "language.scene_in.1.weight" in weights
    named = whole["frozen_references"]
    assert {source["source"] for source in named["sources"]} == {str(folder)}
    assert all(name.startswith("language.llm.") for name in named["tensors"])
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for path in (tmp_path / "part/checkpoints").iterdir():
        if path.name != "checkpoint_epoch_1.pth":
            path.unlink()
    warm_program.run(tmp_path, "training.resume=part/checkpoints/checkpoint_epoch_1.pth")
    part = read_checkpoint(tmp_path / "part/checkpoints/last.pth")
    for key in ("model_state_dict", "training_state_dict"):
        assert part[key].keys() == whole[key].keys()
        assert all(torch.equal(value, whole[key][name]) for name, value in part[key].items())


@pytest.mark.slow
@pytest.mark.promise
def test_of_a_lora_run_checkpoints_hold_the_matrices_alone_and_it_goes_on_bit_by_bit(warm_program, folder, tmp_path):
    arguments = [
        *FROZEN,
        f"model.llm_path={folder}",
        "model.llm=lora",
        "model.bypass=false",
        "training.save_interval=1",
    ]
    warm_program.run(tmp_path, *arguments, "hydra.run.dir=whole")
    first, last = (
        read_checkpoint(tmp_path / f"whole/checkpoints/{name}.pth") for name in ("checkpoint_epoch_1", "last")
    )
    held = {name for name in last["training_state_dict"] if name.startswith("language.llm.")}
    named = set(last["frozen_references"]["tensors"])
    assert held
    assert all(name.split(".")[-3] in ("lora_A", "lora_B") for name in held)
    assert all(name.startswith("language.llm.") and ".lora_" not in name for name in named)
    assert any(name.endswith("q_proj.base_layer.weight") for name in named)
    assert {source["source"] for source in last["frozen_references"]["sources"]} == {str(folder)}
    for weights in (last["model_state_dict"], last["ema_state_dict"]["weights"]):
        assert {name for name in weights if name.startswith("language.llm.")} == held
    changed = {
        name for name in held if not torch.equal(last["training_state_dict"][name], first["training_state_dict"][name])
    }
    assert changed == held
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for path in (tmp_path / "part/checkpoints").iterdir():
        if path.name != "checkpoint_epoch_1.pth":
            path.unlink()
    warm_program.run(tmp_path, "training.resume=part/checkpoints/checkpoint_epoch_1.pth")
    part = read_checkpoint(tmp_path / "part/checkpoints/last.pth")
    for key in ("model_state_dict", "training_state_dict"):
        assert part[key].keys() == last[key].keys()
        assert all(torch.equal(value, last[key][name]) for name, value in part[key].items())


def test_preflight_shows_that_gradients_reach_the_scene_and_not_the_language_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fixed = ["--config-path", str(REPOSITORY / "conf"), "--json", "-"]
    code = main(["preflight", *fixed, *FROZEN, "model.bypass=false", "--seconds", "0.1"])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["is_fine"]) == (0, True), report
    modules = {module["name"]: module for module in report["stages"][0]["modules"]}
    assert modules["language.llm"]["gradient_norm"] is None
    assert modules["language.llm"]["num_trainable"] == 0
    for name in ("language.scene_in", "language.query_in", "scene", "qformer", "vision"):
        assert modules[name]["gradient_norm"] > 0
    groups = {group["name"]: group for group in report["stages"][0]["groups"]}
    assert groups["frozen"]["gradient_norm"] is None

    code = main(["preflight", *fixed, *FROZEN, "--shapes-only", "model.qformer.pretrained=nowhere.pth"])
    shapes = json.loads(capsys.readouterr().out)["stages"][0]["shapes"]
    assert code == 0
    assert 0 < shapes["checkpointed"]["per_sample"] < shapes["activations"]["per_sample"]
    assert shapes["frozen_weights"] == 4 * modules["language.llm"]["num_parameters"]
    rows = {row["batch_size"]: row["bytes"] for row in shapes["batches"]}
    assert rows[16] - rows[8] == 8 * shapes["activations"]["per_sample"]
    assert list(tmp_path.glob("preflight/*")) == [tmp_path / "preflight/single_train_batch.png"]
