"""``model=inktrace data=ink_strokes`` through ``train.py``: what a run leaves behind, and that a killed one goes on exactly."""

import json
from pathlib import Path

import pytest
import yaml
from composed import REPOSITORY
from killed_parts import RECORDED, assert_same_end, record
from PIL import Image

from winnow.commands.cli import main

# 22 tiles in batches of 4 and 2 batches to a step: three steps to an epoch, the last one shorter; two evaluation batches.
TINY = [
    "model=inktrace", "data=ink_strokes", "data.num_train=22", "data.num_val=6", "data.image_size=32", "data.curriculum=2",
    "model.channels=[8,8,8]", "model.depths=[1,1,1]", "model.embed_dim=16", "model.num_layers=1", "model.num_heads=2",
    "training.batch_size=4", "training.num_workers=0", "training.accumulate=2", "training.log_interval=1",
    "training.scheduler.warmup_steps=2", "training.save_every_steps=2", "training.keep_last_n=1", "training.save_interval=2",
    "training.max_epochs=3",
]  # fmt: skip
UNTRACKED = [*TINY, "tracking=off"]
TROUBLED = ["model._target_=troubled.troubled_ink", "trusted_targets=[troubled]", RECORDED]
MASKED = [
    "model.mask_ratio=0.6", "model.skips=false", "training.ema.decay=0.9", "training.amp=bf16", "training.deterministic=true",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("ink")


@pytest.fixture(scope="module")
def whole(warm_program, workplace):
    """Train with hidden blocks, accumulation, EMA, bfloat16 and only deterministic kernels, uninterrupted."""
    warm_program.run(workplace, *UNTRACKED, *TROUBLED, *MASKED, "hydra.run.dir=whole")
    return workplace / "whole"


def test_a_run_leaves_its_metrics_and_pictures(warm_program, workplace):
    printed = warm_program.run(workplace, *UNTRACKED, "training.max_epochs=1", "hydra.run.dir=alone")
    result = json.loads((workplace / "alone/result.json").read_text())
    assert result["best"]["metric"] == "val/f1_1px"
    assert {"val/loss", "val/iou", "val/tangent_error_deg", "val/width_error_px", "train/loss_key_points"} <= result[
        "metrics"
    ].keys()
    assert (workplace / "alone/pictures/val_ink.png").stat().st_size > 1000
    assert "val/f1_1px" in printed


@pytest.mark.parametrize("moment", [
    "kill losses 9",
    pytest.param("kill predictions 4", marks=pytest.mark.promise),
    pytest.param("kill forward 7", marks=pytest.mark.promise),
])  # fmt: skip
def test_killed_and_resumed_equals_uninterrupted_bit_by_bit(warm_program, workplace, whole, moment):
    name = moment.replace(" ", "_")
    arguments = [*UNTRACKED, *TROUBLED, *MASKED, f"hydra.run.dir={name}"]
    started = warm_program.start(workplace, *arguments, TROUBLE=moment)
    assert started.wait() == -9, started.printed()
    warm_program.run(workplace, *arguments, "training.resume=auto")
    assert_same_end(whole, workplace / name)
    assert record(whole / "outbox.jsonl") == record(workplace / name / "outbox.jsonl")


@pytest.mark.promise
def test_two_ranks_take_the_steps_of_one(warm_program, workplace):
    arguments = [*UNTRACKED, "training.max_epochs=1", "training.accumulate=1"]
    warm_program.run(
        workplace, *arguments, "training.batch_size=8", RECORDED, "trusted_targets=[troubled]", "hydra.run.dir=one"
    )
    warm_program.run(
        workplace, *arguments, "training.num_ranks=2", RECORDED, "trusted_targets=[troubled]", "hydra.run.dir=two"
    )
    one, two = ({name: value for name, _, value in record(workplace / run / "outbox.jsonl")} for run in ("one", "two"))
    # Adam's first steps make more of what rounding changes.
    names = [name for name in one if name.startswith(("val/", "train/loss"))]
    assert {name: two[name] for name in names} == pytest.approx({name: one[name] for name in names}, rel=0.01, abs=1e-3)


@pytest.fixture(scope="module")
def staged(warm_program, workplace):
    """Return what both stages printed, tracked in MLflow as shipped, and their results."""
    printed = warm_program.run(workplace, *TINY, "stage=ink/all", "training.max_epochs=1", "hydra.run.dir=staged")
    return printed, {
        name: json.loads((workplace / f"staged/{name}/result.json").read_text()) for name in ("structural", "dense")
    }


def test_the_stages_hand_over_and_masks_are_the_first_ones_only(staged, workplace):
    printed, results = staged
    assert {name: result["status"] for name, result in results.items()} == {
        "structural": "completed",
        "dense": "completed",
    }
    assert "val/width_error_px" in results["dense"]["metrics"].keys() - results["structural"]["metrics"].keys()
    configs = {
        name: yaml.safe_load((workplace / f"staged/{name}/config.yaml").read_text())["model"] for name in results
    }
    assert [configs[name]["mask_ratio"] for name in ("structural", "dense")] == [0.6, 0.0]
    assert "dense will take over from structural" in printed


def test_mlflow_holds_the_pictures_of_each_stage(staged, workplace):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workplace}/mlflow.db")
    widths = {}
    for name, result in staged[1].items():
        run_id = result["mlflow_run_id"]
        assert [file.path for file in client.list_artifacts(run_id, "pictures")] == ["pictures/val_ink.png"]
        picture = Path(client.download_artifacts(run_id, "pictures/val_ink.png", str(workplace)))
        assert picture.read_bytes() == (workplace / f"staged/{name}/pictures/val_ink.png").read_bytes()
        with Image.open(picture) as image:
            widths[name] = image.width
    # Strokes can be rebuilt where their widths are known.
    assert widths["dense"] > widths["structural"]


def test_a_preflight_of_ink_is_all_clear_and_draws_a_training_batch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fixed = ["--config-path", str(REPOSITORY / "conf"), "--seconds", "0.1", "--json", "-"]
    assert main(["preflight", *fixed, *UNTRACKED]) == 0
    stage = json.loads(capsys.readouterr().out)["stages"][0]
    assert stage["pictures"] == ["preflight/single_train_batch.png"]
    assert (tmp_path / "preflight/single_train_batch.png").stat().st_size > 1000


@pytest.mark.parametrize(("choices", "words"), [
    (["model=inktrace", "data=digits"], "model=inktrace is of ink, data=digits_data is of detection"),
    (["model=fcos_tiny", "data=ink_strokes"], "model=fcos_tiny is of detection, data=ink_strokes is of ink"),
])  # fmt: skip
def test_a_model_for_other_data_is_refused_before_any_is_made(warm_program, tmp_path, choices, words):
    printed = warm_program.run(tmp_path, *choices, "tracking=off", "hydra.run.dir=run", code=1)
    assert words in printed
    assert not (tmp_path / "data").exists()
