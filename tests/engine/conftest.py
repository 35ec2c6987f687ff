"""Runs of tiny parts."""

from pathlib import Path

import pytest
import torch
from engine_parts import ListTracker, VectorData, VectorTask, training_settings

from winnow.engine.checkpoints import CheckpointFolder
from winnow.engine.ema import Ema
from winnow.engine.loop import Fit
from winnow.engine.optimizer import build_optimizer
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress
from winnow.engine.schedule import LrSchedule, SizeSchedule
from winnow.engine.seeding import seed_everything
from winnow.engine.settings import Objective
from winnow.engine.snapshot import Snapshot
from winnow.engine.state import TrainState
from winnow.engine.step import TrainStep


@pytest.fixture
def make_fit(tmp_path):
    """A run of tiny parts in ``folder``; keyword arguments are ``training`` settings."""

    def make(folder: Path | str = "run", data=None, task=None, objective="val/score", mode="max", **changes):
        training = training_settings(**changes)
        seed_everything(0)
        task, data = task or VectorTask(), data or VectorData()
        lr = training.optimizer["lr"]
        optimizer = build_optimizer(
            lambda groups: torch.optim.AdamW(groups, lr=lr), task.model, training.param_groups, lr
        )
        state = TrainState(Objective(metric=objective, mode=mode))
        step = TrainStep(
            task, optimizer, LrSchedule.of(training, data, state),
            Precision.choose(training.amp, torch.device("cpu")), training.clip_grad_norm,
            Ema(task.model, training.ema.decay) if training.ema.decay else None, training.max_nonfinite,
        )  # fmt: skip
        return Fit(
            task=task, data=data, step=step, state=state, settings=training,
            sizes=SizeSchedule.of(training.resize_schedule, 8),
            checkpoints=CheckpointFolder(tmp_path / folder / "checkpoints", training.save_interval, training.keep_last_n),
            snapshot=Snapshot(step, {}, ["sum"], {"data_fingerprint": data.fingerprint}), tracker=ListTracker(), trial=None,
            progress=Progress(),
        )  # fmt: skip

    return make
