"""Two stages and a pipeline of them, as a user adds them: YAML files in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import yaml

SHAPES = """# @package _global_
# Small pictures, a short head.
stage: {name: shapes}
model: {_target_: troubled.troubled, head_convs: 1}
data: {num_train: 22, image_size: 32}
training: {max_epochs: 2}
"""
FINE = """# @package _global_
# Fewer, larger pictures, a longer head on a backbone that stays.
stage:
  name: fine
  init_from: shapes:best
  init_allow_missing: [head.classification_head.conv, head.regression_head.conv]
model: {_target_: troubled.troubled_later, head_convs: 2}
data: {num_train: 18, image_size: 64}
training: {max_epochs: 3, freeze: ['^backbone'], optimizer: {lr: 1e-3}}
"""
BOTH = """# @package _global_
# Both, in this order.
defaults: [fine, _self_]
stage: {name: both, init_from: null, stages: [shapes, fine]}
"""
TINY = [
    "--config-dir", "own", "data.num_val=6", "data.size=64", "training.batch_size=4", "training.num_workers=0",
    "training.accumulate=2", "training.log_interval=1", "training.scheduler.warmup_steps=2", "training.save_every_steps=2",
    "training.ema.decay=0.9", "model.channels=[8,8,16,16]", "model.head_channels=32", "trusted_targets=[troubled]",
]  # fmt: skip
"""An epoch is 3 steps: of ``shapes`` in 6 batches, of ``fine`` in 5; and 2 batches of evaluation."""
UNTRACKED = [*TINY, "tracking=off"]
RECORDED = [*UNTRACKED, "tracking._target_=troubled.OutboxTracker"]


def write_stages(folder: Path, **others: str) -> Path:
    """Write ``own/stage/*.yaml`` in ``folder``; ``others`` are more files, or other texts of the three."""
    stages = folder / "own" / "stage"
    stages.mkdir(parents=True, exist_ok=True)
    for name, text in {"shapes": SHAPES, "fine": FINE, "both": BOTH, **others}.items():
        assert yaml.safe_load(text) is not None
        (stages / f"{name}.yaml").write_text(text)
    return folder
