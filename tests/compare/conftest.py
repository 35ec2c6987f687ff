"""Checkpoints of a tiny network to compare."""

import pytest
import torch
from torch import nn

from winnow.checkpoints.file import KEYS, VERSION, write_checkpoint


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 1)


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {name: value.clone() for name, value in Net().state_dict().items()}


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint of winnow's; ``changes`` are its keys."""

    def write(name, state, config=None, **changes):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        trained = [key for key in state if "running" not in key and "num_" not in key]
        groups = [
            {"name": part, "tensors": [key for key in trained if key.startswith(part)], "params": []}
            for part in ("backbone", "head")
        ]
        write_checkpoint(path, {
            **dict.fromkeys(KEYS), "version": VERSION, "epoch": 3, "step": 30, "model_state_dict": state,
            "optimizer_state_dict": {"state": {}, "param_groups": groups}, "metric": "val/map",
            "metrics": {"val/map": 0.5, "val/loss": 1.25}, "best": {"metric": "val/map", "value": 0.5, "epoch": 3, "step": 30},
            "config": {"training": {"optimizer": {"lr": 0.01}, "init_from": None}} if config is None else config,
            "classes": ["cat"], "metadata": {"data_fingerprint": "f", "seed": 0, "choices": {"model": "tiny"}},
            "progress": {"mode": "max", "cost": {"seconds": 60.0}}, "timestamp": "2026-11-21T10:00:00+00:00", **changes,
        })  # fmt: skip
        return str(path)

    return write
