"""``model=map_qformer_tiny`` through ``train.py``: what a run leaves behind, kills, ranks, and that it learns."""

import json

import pytest
from composed import REPOSITORY
from killed_parts import RECORDED, assert_same_end, record
from PIL import Image
from test_ranks import run_ranks

from winnow.commands.cli import main

SIZES = [
    "model=map_qformer_tiny", "data=map_synthetic", "data.image_size=32", "model.channels=[8,16]", "model.width=16",
    "model.num_instances=6", "model.qformer.tokens_per_camera=3", "model.qformer.width=16", "model.qformer.num_heads=2",
    "model.qformer.ffn_width=32", "model.decoder.num_heads=2", "model.decoder.ffn_width=32",
]  # fmt: skip
TINY = [
    *SIZES, "data.num_train=10", "data.num_val=3", "training.batch_size=4", "training.num_workers=0",
    "training.save_every_steps=2", "training.max_epochs=3", "training.log_interval=1", "training.scheduler.warmup_steps=2",
    "tracking=off",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("maps")


def test_a_run_measures_raw_and_averaged_weights_and_draws_lines(warm_program, workplace):
    warm_program.run(workplace, *TINY, "training.max_iter=2", "hydra.run.dir=alone")
    result = json.loads((workplace / "alone/result.json").read_text())
    assert result["best"]["metric"] == "val/map"
    terms = {f"train/loss_{name}{layers}" for name in ("class", "points", "direction") for layers in ("", "_aux")}
    assert terms | {"val/loss", "val/map", "val_raw/map", "val_raw/loss"} <= result["metrics"].keys()
    with Image.open(workplace / "alone/pictures/val_maps.png") as picture:
        assert picture.width > 1000


@pytest.mark.slow
def test_a_preflight_is_all_clear(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fixed = ["--config-path", str(REPOSITORY / "conf"), "--seconds", "0.1", "--json", "-"]
    code = main(["preflight", *fixed, *TINY])
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    (stage,) = report["stages"]
    assert (code, report["is_fine"], stage["errors"], stage["warnings"]) == (0, True, [], [])
    assert set(stage["losses"]) == {
        f"loss_{name}{layers}" for name in ("class", "points", "direction") for layers in ("", "_aux")
    }


@pytest.mark.slow
@pytest.mark.promise
def test_a_killed_run_goes_on_bit_by_bit(warm_program, workplace):
    troubled = ["model._target_=troubled.troubled_maps", "trusted_targets=[troubled]", RECORDED]
    drawn = ["training.accumulate=2", "training.batch_size=2", "model.decoder.dropout=0.1", "model.qformer.dropout=0.1"]
    arguments = [*TINY, *troubled, *drawn]
    warm_program.run(workplace, *arguments, "hydra.run.dir=whole")
    killed = [*arguments, "hydra.run.dir=killed"]
    assert warm_program.start(workplace, *killed, TROUBLE="kill losses 9").wait() == -9
    warm_program.run(workplace, *killed, "training.resume=auto")
    assert_same_end(workplace / "whole", workplace / "killed")
    assert record(workplace / "whole/outbox.jsonl") == record(workplace / "killed/outbox.jsonl")


@pytest.mark.slow
@pytest.mark.promise
def test_two_ranks_are_one_that_has_both_their_samples(warm_program, workplace):
    """10 samples: of the last batch each rank gets one."""
    plain = [*TINY, "training/optimizer=sgd", "training.optimizer.momentum=0", "training.optimizer.nesterov=false",
             "training.optimizer.lr=0.001", "training.scheduler.warmup_steps=0"]  # fmt: skip
    run_ranks(warm_program, workplace, *plain, "training.batch_size=2", "hydra.run.dir=ranks")
    warm_program.run(workplace, *plain, "hydra.run.dir=one")
    ranks, one = (json.loads((workplace / name / "result.json").read_text())["metrics"] for name in ("ranks", "one"))
    assert ranks["val/loss"] == pytest.approx(one["val/loss"], rel=1e-5)
    assert ranks["train/loss"] == pytest.approx(one["train/loss"], rel=1e-5)


@pytest.mark.slow
def test_it_learns_8_scenes_by_heart(warm_program, workplace):
    """In 300 steps; in 1,000 it reaches 0.9 (benchmarks/maps.py)."""
    arguments = [
        "model=map_qformer_tiny", "data=map_synthetic", "training=overfit", "training.overfit=8", "training.batch_size=8",
        "training.max_epochs=300", "training.eval_interval=300", "tracking=off", "hydra.run.dir=overfit",
    ]  # fmt: skip
    warm_program.run(workplace, *arguments)
    assert json.loads((workplace / "overfit/result.json").read_text())["metrics"]["val/map"] >= 0.40
