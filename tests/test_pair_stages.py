"""The stages of pairs on the excerpts of LLVIP and KAIST through ``train.py``: the recipes, the pipeline, kill and resume, and
whether the small model can learn nine pairs by heart."""

import itertools
import json

import pytest
import yaml
from composed import REPOSITORY, compose_plain
from killed_parts import RECORDED, assert_same_end, record
from PIL import Image

DATA = REPOSITORY.parent / "shared/data"
LLVIP = [f"data.llvip_root={DATA / 'llvip_mini'}", "data.llvip_split={train: ['01'], val: ['01']}"]
KAIST = f"data.kaist_root={DATA / 'kaist_mini'}"
KAIST_SETS = "[set06, set08, set09, set10, set11]"
KAIST_SPLIT = "data.kaist_split={train: [set09], val: [set06, set08, set10, set11]}"
PIPELINE = ["stage=pairs/all", "model=pair_faster_rcnn_tiny", *LLVIP, KAIST, KAIST_SPLIT]
"""The command on the first page of docs/pairs.md."""
COMMAND = [
    *PIPELINE, "data.image_size=96", "training.batch_size=4", "training.num_workers=0", "training.max_iter=6",
    "training.save_every_steps=1", "training.log_interval=1", "training.ema.decay=0.9", "model._target_=troubled.troubled_pairs",
    "trusted_targets=[troubled]", "tracking=off", RECORDED,
]  # fmt: skip
"""Losses are asked for 12 times in llvip (2 epochs of 3 steps and 3 evaluated batches), 18 times in kaist (6 of 1 and 2)."""
IN_LLVIP, IN_KAIST = "kill losses 8", "kill losses 13"
OVERFIT = {
    "llvip": (LLVIP, "[16,32,64]", 0.95),
    "kaist": ([KAIST, f"data.kaist_split={{train: {KAIST_SETS}, val: {KAIST_SETS}}}"], "[14,26,48]", 0.80),
}
FLIP_ONLY = [f"data.augmentation.{key}" for key in ("photometric=0", "crop=0", "resize_scale=[1,1]")]
ROOTS = ["data.llvip_root=a", "data.kaist_root=b"]

excerpts = pytest.mark.skipif(not (DATA / "llvip_mini").is_dir(), reason="the excerpts are not there")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def whole(warm_program, workplace):
    warm_program.run(workplace, *COMMAND, "hydra.run.dir=whole")
    return workplace / "whole"


@pytest.mark.parametrize(("stage", "epochs", "lr", "objective", "init_from"), [
    ("llvip", 24, 5e-4, ("val/map", "max"), None),
    ("kaist", 12, 1e-4, ("val/miss_rate", "min"), "llvip:best"),
])  # fmt: skip
def test_the_recipe_of_each_stage(stage, epochs, lr, objective, init_from):
    config = compose_plain(f"stage=pairs/{stage}", "model=pair_faster_rcnn", *ROOTS)
    training, data = config["training"], config["data"]
    assert (training["max_epochs"], training["optimizer"]["lr"], training["batch_size"]) == (epochs, lr, 4)
    assert training["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert (training["scheduler"]["name"], training["scheduler"]["warmup_steps"]) == ("cosine", 800)
    assert (training["ema"]["decay"], training["clip_grad_norm"], training["no_decay"]) == (
        0.9998,
        5.0,
        ["norm", "bias"],
    )
    assert (data["name"], data["image_size"], data["resize"]) == (stage, 640, "pad")
    assert (config["objective"]["metric"], config["objective"]["mode"]) == objective
    assert training["init_from"] == init_from


@pytest.mark.parametrize("stage", ["llvip", "kaist"])
def test_the_small_model_keeps_its_size_and_its_recipe_in_the_stages(stage):
    alone = compose_plain("model=pair_faster_rcnn_tiny", f"data={stage}", *ROOTS)
    staged = compose_plain(f"stage=pairs/{stage}", "model=pair_faster_rcnn_tiny", *ROOTS)
    assert staged["training"] == alone["training"] | {"init_from": staged["stage"]["init_from"]}
    assert (staged["model"], staged["data"]) == (alone["model"], alone["data"] | {"image_size": 320})
    smoke = compose_plain(f"stage=pairs/{stage}", "model=pair_faster_rcnn_tiny", "budget=smoke", *ROOTS)
    assert smoke["data"]["image_size"] < 320


def test_the_command_of_the_tests_is_that_of_the_first_page():
    first_page = (REPOSITORY / "docs/pairs.md").read_text().split("## ")[0].replace("\\\n", "").replace('"', "")
    assert " ".join(["python train.py", *PIPELINE]).replace(str(DATA), "../shared/data") in " ".join(first_page.split())


@excerpts
@pytest.mark.slow
def test_the_documented_command_runs_through_with_nothing_else(warm_program, workplace):
    warm_program.run(workplace, *PIPELINE, "hydra.run.dir=documented")
    total = json.loads((workplace / "documented/result.json").read_text())
    assert (total["status"], list(total["stages"])) == ("completed", ["llvip", "kaist"])
    llvip = json.loads((workplace / "documented/llvip/result.json").read_text())
    assert llvip["metrics"]["val/map_50"] > 0.1, "24 steps on nine pairs, evaluated on the same"


@excerpts
@pytest.mark.slow
def test_the_pipeline_is_swept_over_its_fusion(warm_program, workplace):
    few = ["training.max_iter=1", "data.image_size=64", "training.num_workers=0", "tracking=off"]
    sweep = [
        "hydra/sweeper=winnow",
        "hydra.sweeper.direction=minimize",
        "hydra.sweeper.n_trials=2",
        "hydra.sweeper.n_jobs=1",
    ]
    warm_program.run(
        workplace, "-m", *PIPELINE, *few, *sweep, "model.fusion=choice(early,mid)", "hydra.sweep.dir=swept"
    )
    trials = {}
    for path in (workplace / "swept").glob("*/result.json"):
        for stage in ("llvip", "kaist"):
            config = yaml.safe_load((path.parent / stage / "config.yaml").read_text())
            trials[stage, config["model"]["fusion"]] = json.loads(path.read_text())["status"]
    assert trials == dict.fromkeys(itertools.product(("llvip", "kaist"), ("early", "mid")), "completed")


@excerpts
def test_the_pipeline_runs_through_on_the_excerpts(whole):
    total = json.loads((whole / "result.json").read_text())
    assert (total["status"], list(total["stages"])) == ("completed", ["llvip", "kaist"])
    kaist = json.loads((whole / "kaist/result.json").read_text())
    assert (kaist["best"]["metric"], total["objective"]) == ("val/miss_rate", kaist["objective"])
    report = json.loads((whole / "kaist/init_from.json").read_text())
    assert report["source"].endswith("llvip/checkpoints/best.pth")
    assert not report["missing"] + report["reshaped"] + report["unexpected"]
    for stage in ("llvip", "kaist"):
        with Image.open(whole / stage / "pictures/val_detections.png") as picture:
            assert picture.width > 2 * 480, "both images side by side"


@excerpts
@pytest.mark.promise
@pytest.mark.parametrize(("name", "trouble"), [("llvip", IN_LLVIP), ("kaist", IN_KAIST)])
def test_a_pipeline_killed_in_either_stage_goes_on_bit_by_bit(warm_program, workplace, whole, name, trouble):
    command = [*COMMAND, f"hydra.run.dir=killed_in_{name}"]
    assert warm_program.start(workplace, *command, TROUBLE=trouble).wait() == -9
    killed = workplace / f"killed_in_{name}"
    assert (killed / name / "checkpoints/last.pth").exists()
    assert not (killed / name / "result.json").exists()
    warm_program.run(workplace, *command, "training.resume=auto")
    for stage in ("llvip", "kaist"):
        assert_same_end(whole / stage, killed / stage)
        assert record(whole / stage / "outbox.jsonl") == record(killed / stage / "outbox.jsonl")


@excerpts
@pytest.mark.slow
@pytest.mark.parametrize("name", OVERFIT)
def test_nine_pairs_are_learnt_by_heart(warm_program, workplace, name):
    split, sizes, least = OVERFIT[name]
    arguments = [
        "model=pair_faster_rcnn_tiny", f"data={name}", *split, "data.image_size=320", *FLIP_ONLY,
        "training.batch_size=4", "training.max_iter=200", "training.max_epochs=100", "training.optimizer.weight_decay=0",
        "model.anchor_ratios=[2.4]",
        f"model.anchor_sizes={sizes}", "training.eval_interval=100", "training.num_workers=0", "tracking=off",
    ]  # fmt: skip
    warm_program.run(workplace, *arguments, f"hydra.run.dir=overfit_{name}")
    result = json.loads((workplace / f"overfit_{name}/result.json").read_text())
    assert result["metrics"]["val/map_50"] >= least
