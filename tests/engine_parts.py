"""The smallest real parts a run can be made of: a regression on vectors, with dropout so that random numbers matter."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from winnow.checkpoints.folder import CheckpointFolder
from winnow.engine.ema import Ema
from winnow.engine.frozen import References
from winnow.engine.loop import Fit
from winnow.engine.optimizer import build_optimizer
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress
from winnow.engine.schedule import LrSchedule, SizeSchedule
from winnow.engine.seeding import seed_everything
from winnow.engine.settings import Objective, TrainingSettings
from winnow.engine.snapshot import Snapshot
from winnow.engine.state import TrainState
from winnow.engine.step import TrainStep


@dataclass(frozen=True)
class Vectors:
    inputs: torch.Tensor
    truth: torch.Tensor
    image_ids: list[int]
    side: int

    @property
    def num_samples(self):
        return len(self.image_ids)

    @property
    def shape(self):
        return (len(self.image_ids), self.side, self.side)

    def to(self, device, memory_format=torch.preserve_format):
        return replace(self, inputs=self.inputs.to(device), truth=self.truth.to(device))

    def pin_memory(self):
        return self


class VectorData:
    """The sum of a vector's entries is to be learnt; ``image_size`` only scales the cost."""

    classes = ("sum",)
    fingerprint = "vectors"
    batch_class = Vectors

    def __init__(self, num_samples=24, batch_size=4, num_val=8, seed=0, poison_step=None):
        self.num_train_samples = num_samples
        self.batch_size, self.num_val, self.seed, self.poison = batch_size, num_val, seed, poison_step
        self.requested, self.seen = [], []

    def num_train_batches(self, start_sample=0):
        return -(-(self.num_train_samples - start_sample) // self.batch_size)

    def num_val_batches(self):
        return 1 if self.num_val else 0

    def train_batches(self, epoch, image_size, start_sample=0):
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_train_samples)
        for start in range(start_sample, self.num_train_samples, self.batch_size):
            indices = order[start : start + self.batch_size]
            self.requested.append((epoch, start, image_size))
            self.seen += [(epoch, int(index)) for index in indices]
            yield self._batch(indices, epoch, image_size)

    def val_batches(self, image_size):
        self.requested.append(("val", 0, image_size))
        yield self._batch(range(1000, 1000 + self.num_val), 0, image_size)

    def _batch(self, indices, epoch, image_size):
        rows = [np.random.default_rng([self.seed, epoch, int(index)]).normal(size=5) for index in indices]
        inputs = torch.tensor(np.stack(rows), dtype=torch.float32)
        truth = inputs.sum(dim=1)
        if self.poison is not None and epoch >= self.poison:
            truth = truth * torch.nan
        return self.batch_class(inputs, truth, [int(index) for index in indices], image_size)


class MeanError:
    names = ("score",)
    headlines = ("score",)

    def __init__(self):
        self.errors = []

    def update(self, predictions, batch):
        self.errors += (predictions - batch.truth.cpu()).abs().tolist()

    def state(self):
        return self.errors

    def merge(self, state):
        self.errors += state

    def compute(self):
        return {"score": 1 / (1 + float(np.mean(self.errors)))}


class VectorTask:
    classes = ("sum",)
    counted_by = {}  # noqa: RUF012

    def __init__(self, dropout=0.1):
        self.model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1))

    def forward(self, batch):
        return self.model(batch.inputs)[:, 0]

    def loss_count(self, batch):
        return {"vectors": float(batch.num_samples)}

    def losses(self, outputs, batch, count):
        return {"loss_square": (outputs - batch.truth).square().sum() / count["vectors"]}

    def predictions(self, outputs, batch):
        return outputs.float().cpu()

    def new_metric(self):
        return MeanError()


class ListTracker:
    """Keeps every event in order."""

    run_id = "list"

    def __init__(self):
        self.metrics = []

    def log_metrics(self, metrics, step):
        self.metrics += [(name, value, step) for name, value in metrics.items()]

    def flush(self):
        return True

    def values(self, name):
        return [(step, value) for key, value, step in self.metrics if key == name]


def training_settings(**changes):
    plain = {
        "max_epochs": 3, "max_iter": None, "batch_size": 4, "accumulate": 1, "num_workers": 0, "drop_last": False, "amp": "off",
        "clip_grad_norm": None, "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01}, "param_groups": None, "freeze": [],
        "scheduler": {"name": "cosine"}, "auto_scale_lr": {"base_batch_size": None}, "ema": {"decay": None}, "subset_size": None,
        "subset_seed": 42, "overfit": None, "resize_schedule": None, "eval_interval": 1, "save_interval": 1, "keep_last_n": 2,
        "save_every_steps": None,
        "log_interval": 2, "early_stopping": {"patience": None}, "max_nonfinite": 3, "oom_retry": False,
        "require_gradients": True, "resume": None, "init_from": None,
        "seed": 0, "deterministic": False, "compile": False, "device": "cpu",
        "num_ranks": None, "sync_batch_norm": False,
    }  # fmt: skip
    return TrainingSettings.model_validate(plain | changes)


@pytest.fixture
def make_fit(tmp_path):
    """Return a run of tiny parts in ``folder``; keyword arguments are ``training`` settings."""

    def make(folder: Path | str = "run", data=None, task=None, objective="val/score", mode="max", **changes):
        training = training_settings(**changes)
        seed_everything(0)
        task, data = task or VectorTask(), data or VectorData()
        lr = training.optimizer["lr"]
        optimizer = build_optimizer(
            lambda groups: torch.optim.AdamW(groups, lr=lr), task.model, training.param_groups, lr, training.no_decay
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
            snapshot=Snapshot(
                step, {}, ["sum"], {"data_fingerprint": data.fingerprint},
                References(tmp_path / folder) if training.frozen_weights == "referenced" else None, training.frozen_source,
                getattr(data, "changes_since", None),
            ),
            tracker=ListTracker(), trial=None,
            progress=Progress(),
        )  # fmt: skip

    return make
