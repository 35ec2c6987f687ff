"""Checkpoints of winnow's, whole and resealed, and files of other programs."""

from __future__ import annotations

import argparse
import collections
import copy
import itertools
import json
import os
import pathlib
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composed import REPOSITORY
from engine_parts import ListTracker, VectorData, VectorTask, training_settings
from fuzz.labels import changed_json
from fuzz.mutations import CANARY, mutated, mutated_bytes, odd_value
from fuzz.pool import Case, Kind
from safetensors.torch import save
from torch import Tensor

from winnow.checkpoints.file import write_checkpoint
from winnow.checkpoints.folder import CheckpointFolder
from winnow.checkpoints.initial import load_initial_weights
from winnow.checkpoints.seal import has_whole_checkpoint
from winnow.compare.comparison import compare, to_json
from winnow.compare.page import page
from winnow.compare.subject import read_subject
from winnow.compare.table import tables
from winnow.config.compose import Command, compose_command_line
from winnow.config.resolvers import run_folder
from winnow.console import CONSOLE
from winnow.engine.ema import Ema
from winnow.engine.loop import Fit
from winnow.engine.optimizer import build_optimizer
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress
from winnow.engine.schedule import LrSchedule, SizeSchedule
from winnow.engine.settings import Objective
from winnow.engine.snapshot import Snapshot
from winnow.engine.state import TrainState
from winnow.engine.step import TrainStep
from winnow.run.plan import RunPlan
from winnow.run.resolve import resolve
from winnow.run.resume import find_checkpoint, read_found

TINY = [
    "data.num_train=22", "data.num_val=6", "data.size=64", "data.image_size=64", "training.num_workers=0", "tracking=off",
    "model.channels=[8,8,16,16]", "model.head_channels=32", "training.max_epochs=6", "training.seed=3",
]  # fmt: skip


def tiny_fit(folder: Path, config: dict[str, Any]) -> Fit:
    """Return a run of vectors whose checkpoints hold ``config``."""
    training = training_settings(max_epochs=6, ema={"decay": 0.9})
    torch.manual_seed(0)
    task, data = VectorTask(), VectorData()
    optimizer = build_optimizer(
        lambda groups: torch.optim.AdamW(groups, lr=0.01), task.model, None, 0.01, training.no_decay
    )
    state = TrainState(Objective(metric="val/score", mode="max"))
    step = TrainStep(
        task, optimizer, LrSchedule.of(training, data, state), Precision.choose("off", torch.device("cpu")), None,
        Ema(task.model, 0.9), 3,
    )  # fmt: skip
    metadata = {
        "data_fingerprint": "vectors",
        "seed": 3,
        "choices": {"model": "fcos_tiny", "data": "digits", "stage": "single"},
    }
    return Fit(
        task=task, data=data, step=step, state=state, settings=training, sizes=SizeSchedule.of(None, 8),
        checkpoints=CheckpointFolder(folder / "checkpoints", 1, 2), snapshot=Snapshot(step, config, ["sum"], metadata, None,
        None),
        tracker=ListTracker(), trial=None, progress=Progress(),
    )  # fmt: skip


def train_one_step(fit: Fit) -> None:
    fit.step([next(iter(fit.data.train_batches(1, 8)))], fit.state.step)


def prepare_checkpoint(folder: Path) -> Any:
    command = compose_command_line(REPOSITORY / "conf", [*TINY, "training.resume=auto"])
    config = RunPlan.of(command.config, folder, {}, None, None).config
    fit = tiny_fit(folder, config)
    for step in range(3):
        train_one_step(fit)
        fit.state.step = step + 1
    fit.state.epoch, fit.state.metrics = 1, {"val/score": 0.5, "val/loss": 1.5, "train/loss": 2.0}
    fit.state.take_note(fit.state.metrics, 0.0)
    content = fit.snapshot.take(fit.state)
    content["metadata"]["resumed_from"] = [{"path": "x", "epoch": 1, "step": 3}]
    path = folder / "last.pth"
    write_checkpoint(path, content)
    model = {name: value.clone() for name, value in fit.task.model.state_dict().items()}
    return {
        "command": command,
        "content": copy.deepcopy(content),
        "bytes": path.read_bytes(),
        "good": path,
        "model": model,
    }


def _odd_for_weights(rng: random.Random) -> Any:
    tensors = (
        torch.zeros(0), torch.tensor(float("nan")), torch.full((16,), float("inf")), torch.zeros(3, dtype=torch.int64),
        torch.tensor(5),
        torch.zeros(2, 2, dtype=torch.complex64), torch.zeros((1,) * 20), torch.ones(16, 5, dtype=torch.float64),
        torch.tensor(True),
        torch.zeros(16, 5).t(), torch.zeros(5, dtype=torch.uint8), torch.zeros(16, 5, dtype=torch.bfloat16),
        torch.zeros(5056, dtype=torch.uint8),
        torch.zeros(1).expand(10**9), torch.zeros(10**6, device="meta"), torch.nn.Parameter(torch.zeros(16)), torch.zeros(16,
        5, requires_grad=True),
    )  # fmt: skip
    others = (
        b"bytes",
        (1, 2),
        {1, 2},
        collections.OrderedDict(a=1),
        {1: 2, None: 3, (1, 2): 4},
        1 + 2j,
        "x" * 10**5,
        [0] * 10**5,
    )
    return odd_value(rng, own=rng.choice((tensors, tensors, others)))


def changed_content(rng: random.Random, content: Any) -> Any:
    return mutated(rng, copy.deepcopy(content), partial(_odd_for_weights, rng))


def written(write: Callable[[], Any]) -> None:
    """Write until it works: not every change can be pickled, or belongs into a file."""
    for _ in range(50):
        try:
            write()
            return
        except (
            ArithmeticError,
            AttributeError,
            NotImplementedError,
            RecursionError,
            RuntimeError,
            TypeError,
            ValueError,
            pickle.PicklingError,
        ):
            continue
    raise RuntimeError("nothing that can be written")


def _readers(path: Path, shared: Any, folder: Path) -> dict[str, Callable[[], object]]:
    command: Command = shared["command"]
    training = {**command.config["training"], "resume": str(path)}
    composed = replace(
        command, config={**command.config, "training": training}, run_folder=folder / "run", overrides=[]
    )

    def resume() -> None:
        (plan,) = resolve(composed)
        fit = tiny_fit(folder / "run", plan.config)
        assert plan.checkpoint is not None
        assert fit.step.ema is not None
        before = copy.deepcopy(
            [fit.task.model.state_dict(), fit.step.optimizer.state_dict(), fit.step.ema.state_dict()]
        )
        try:
            read_found(plan.checkpoint).restore(fit)
        except BaseException:
            after = [fit.task.model.state_dict(), fit.step.optimizer.state_dict(), fit.step.ema.state_dict()]
            _require_same(before, after)
            raise
        train_one_step(fit)
        write_checkpoint(folder / "again.pth", fit.snapshot.take(fit.state))

    def start() -> None:
        load_initial_weights(VectorTask().model, path)

    def compared() -> None:
        for pair in ([path, shared["good"]], [shared["good"], path]):
            comparison = compare([read_subject(str(one)) for one in pair])
            for item in tables(comparison):
                CONSOLE.print(item)
            print(json.dumps(to_json(comparison), indent=1))
            (folder / "page.html").write_text(page(comparison), encoding="utf-8")

    return {"resume": resume, "init_from": start, "compare": compared}


def _require_same(before: Any, after: Any) -> None:
    """Raise AssertionError where a run that refused a checkpoint has taken something of it."""
    if isinstance(before, Tensor):
        assert torch.equal(before, after), "touched before it was refused"
    elif isinstance(before, dict):
        assert list(before) == list(after), "touched before it was refused"
        for key in before:
            _require_same(before[key], after[key])
    elif isinstance(before, list):
        for pair in itertools.zip_longest(before, after):
            _require_same(*pair)


def _whole(rng: random.Random, shared: Any, folder: Path) -> Case:
    path = folder / "checkpoints" / rng.choice(("last.pth", "best.pth", "checkpoint_epoch_1.pth"))
    path.parent.mkdir()
    path.write_bytes(mutated_bytes(rng, shared["bytes"]))
    readers = _readers(path, shared, folder)
    readers |= {
        "auto": lambda: find_checkpoint("auto", folder), "whole": lambda: has_whole_checkpoint(folder),
        "folder": lambda: run_folder(str(path), "fresh"), "compare folder": lambda: read_subject(str(folder)),
    }  # fmt: skip
    return Case(readers, (path.name, folder.name))


def _resealed(rng: random.Random, shared: Any, folder: Path) -> Case:
    path = folder / "checkpoints" / "last.pth"
    path.parent.mkdir()
    written(lambda: write_checkpoint(path, changed_content(rng, shared["content"])))
    return Case(_readers(path, shared, folder), (path.name, "checkpoint"))


class Bomb:
    """Makes the canary's folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (CANARY,)


def _foreign_content(rng: random.Random, shared: Any) -> Any:
    content, weights = shared["content"], dict(shared["model"])
    optimizer = copy.deepcopy(content["optimizer_state_dict"])
    settings = argparse.Namespace(
        lr=0.1, names=["a"], path=pathlib.PurePosixPath("/x"), number=np.float64(1.5), table=np.zeros(3)
    )
    return rng.choice((
        weights,
        {"model": weights, "optimizer": optimizer, "epoch": 1, "step": 3, "args": settings, "rng": torch.get_rng_state()},
        {"state_dict": {f"model.{name}": value for name, value in weights.items()}, "pytorch-lightning_version": "2.6",
         "epoch": 1,
         "global_step": 6, "optimizer_states": [optimizer], "lr_schedulers": [], "hyper_parameters": {"lr": 0.5},
         "loops": {"fit_loop": {"epoch_progress": {"current": {"processed": 1}}}}},
        {"encoder_state_dict": weights, "head_state_dict": {"w": torch.zeros(2)}, "scaler": {"scale": 2.0},
        "metrics": {"map": 0.5}},
        {**content, "config": {"training": {"optimizer": {"lr": 0.1}}}},
        {"model_state_dict": weights, "frozen_references": {
            "sources": [{"source": "x.pth", "file": "/x.pth", "sha256": "0" * 64}], "tensors": {}, "names": list(weights)}},
    ))  # fmt: skip


def _foreign(rng: random.Random, shared: Any, folder: Path) -> Case:
    kind = rng.choice(("zip", "zip", "legacy", "safetensors"))
    path = folder / {"zip": "x.pth", "legacy": "x.tar", "safetensors": "x.safetensors"}[kind]
    if kind == "safetensors":
        data = save({name: value.contiguous() for name, value in shared["model"].items()}, {"format": "pt"})
        if rng.random() < 0.4:  # its header, as JSON
            size = int.from_bytes(data[:8], "little")
            header = changed_json(rng, json.loads(data[8 : 8 + size]))
            path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
        else:
            path.write_bytes(mutated_bytes(rng, data))
        return Case(_readers(path, shared, folder), (path.name,))
    is_new = kind == "zip"

    def write() -> None:
        content = _foreign_content(rng, shared)
        if rng.random() < 0.65:
            content = mutated(
                rng, copy.deepcopy(content), lambda: Bomb() if rng.random() < 0.1 else _odd_for_weights(rng)
            )
        torch.save(content, path, _use_new_zipfile_serialization=is_new)

    written(write)
    if rng.random() < 0.4:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    return Case(_readers(path, shared, folder), (path.name,))


KINDS = (
    Kind("checkpoint", prepare_checkpoint, _whole),
    Kind("resealed", prepare_checkpoint, _resealed),
    Kind("foreign", prepare_checkpoint, _foreign),
)
