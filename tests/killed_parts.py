"""Runs of ``train.py`` that are killed where they are told to, and what two runs must have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from winnow.tracking.outbox import read_events

# 22 images in batches of 4 and 2 batches to a step: three steps to an epoch, the last one shorter; two evaluation batches.
TRUST = "trusted_targets=[troubled]"
TINY = [
    "data.num_train=22", "data.num_val=6", "data.size=64", "data.image_size=64", "training.batch_size=4",
    "training.num_workers=0", "training.accumulate=2", "training.log_interval=1", "training.scheduler.warmup_steps=2",
    "training.save_every_steps=2", "training.keep_last_n=1", "training.save_interval=2", "model.channels=[8,8,16,16]",
    "model.head_channels=32", "model._target_=troubled.troubled", TRUST, "tracking=off",
]  # fmt: skip
RECORDED = "tracking._target_=troubled.OutboxTracker"
EVERYTHING = [
    "training.ema.decay=0.9", "training.amp=fp16", "training.resize_schedule=[[1,32],[3,64]]", "training.max_epochs=6",
    "training.early_stopping.patience=3", "training.early_stopping.min_delta=0.5",
]  # fmt: skip
MEASURED = ("perf/", "cost/seconds", "system/")


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.pth", weights_only=True)


def record(outbox: Path) -> list[tuple[str, int, Any]]:
    """Return every logged (metric, step, value) that does not measure time, in order."""
    return [
        (name, event.payload["step"], value)
        for event, _ in read_events(outbox)
        if event.kind == "metrics"
        for name, value in event.payload["values"].items()
        if not name.startswith(MEASURED)
    ]


def assert_same_end(one: Path, other: Path) -> None:
    """Require bit for bit the same last checkpoint, in all but times and paths."""
    first, second = last(one), last(other)
    for key in first.keys() - {"timestamp", "config", "metadata", "progress"}:
        assert_equal(first[key], second[key], key)
    for key in first["progress"].keys() - {"cost"}:
        assert_equal(first["progress"][key], second["progress"][key], key)


def assert_equal(one: Any, other: Any, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert one.equal(other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    else:
        assert one == other, where
