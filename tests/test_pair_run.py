"""``model=pair_faster_rcnn_tiny data=pairs_synthetic`` through ``train.py``: what a run leaves behind, and what fusion
is worth."""

import json

import pytest
from killed_parts import RECORDED, assert_same_end, record
from PIL import Image

from winnow.families.pairs.batch import MODALITIES
from winnow.families.pairs.synthetic.ceiling import ceiling
from winnow.families.pairs.synthetic.drawing import draw_pair
from winnow.families.pairs.synthetic.store import SPLITS

TINY = [
    "model=pair_faster_rcnn_tiny", "data=pairs_synthetic", "data.num_train=20", "data.num_val=4", "data.image_size=64",
    "model.channels=[8,8,16,16]", "model.pyramid_channels=16", "model.head_channels=16", "model.anchor_sizes=[8,12,20]",
    "training.batch_size=4", "training.num_workers=0", "training.save_every_steps=2", "training.max_iter=8", "tracking=off",
]  # fmt: skip
MARGIN = 0.25
"""What fusion is worth at the least after 100 steps, in AP50."""
LEAK = 0.04
"""What a single modality may have beyond the oracle's AP50: how many figures there are says a little of how many are persons."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


def test_a_run_leaves_its_metrics_and_pictures_of_both_images(warm_program, workplace):
    warm_program.run(workplace, *TINY, "training.max_iter=2", "model.macl.weight=0.2", "hydra.run.dir=alone")
    result = json.loads((workplace / "alone/result.json").read_text())
    assert result["best"]["metric"] == "val/map"
    assert {"val/loss", "val/map_50", "train/loss_objectness", "train/loss_box_reg"} <= result["metrics"].keys()
    assert "val/miss_rate" not in result["metrics"], "the images are not KAIST's"
    assert {"train/loss_macl", "val/macl", "val/macl_chance"} <= result["metrics"].keys()
    assert [path.name for path in (workplace / "alone/pictures").glob("alignment_*")] == ["alignment_epoch_1.png"]
    with Image.open(workplace / "alone/pictures/val_detections.png") as picture:
        assert picture.width > 2 * 480, "two images of each pair, side by side"


def test_a_killed_run_goes_on_bit_by_bit_whatever_it_draws_and_however_it_is_cut(warm_program, workplace):
    troubled = ["model._target_=troubled.troubled_pairs", "trusted_targets=[troubled]", RECORDED]
    drawn = ["data.modality_dropout.infrared=0.3", "training.accumulate=2", "training.batch_size=2"]
    arguments = [*TINY, *troubled, *drawn]
    warm_program.run(workplace, *arguments, "hydra.run.dir=whole")
    killed = [*arguments, "hydra.run.dir=killed"]
    assert warm_program.start(workplace, *killed, TROUBLE="kill losses 9").wait() == -9
    warm_program.run(workplace, *killed, "training.resume=auto")
    assert_same_end(workplace / "whole", workplace / "killed")
    assert record(workplace / "whole/outbox.jsonl") == record(workplace / "killed/outbox.jsonl")


@pytest.mark.slow
def test_two_modalities_find_what_neither_shows_alone(warm_program, workplace):
    """One seed, 100 steps. A single modality that is beyond what it can reach by construction has the other one's help."""
    pairs = [draw_pair(0, SPLITS.index("val"), index) for index in range(100)]
    found = {}
    for fusion in ("visible", "infrared", "mid"):
        arguments = [
            "model=pair_faster_rcnn_tiny",
            "data=pairs_synthetic",
            f"model.fusion={fusion}",
            "training.max_iter=100",
        ]
        warm_program.run(workplace, *arguments, "training.eval_interval=100", "tracking=off", f"hydra.run.dir={fusion}")
        found[fusion] = json.loads((workplace / fusion / "result.json").read_text())["metrics"]["val/map_50"]
    for index, modality in enumerate(MODALITIES):
        assert found[modality] <= ceiling(pairs, index) + LEAK, found
    assert found["mid"] - max(found["visible"], found["infrared"]) >= MARGIN, found
