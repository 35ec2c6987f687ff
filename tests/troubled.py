"""A user's own model that brings trouble on its process, where TROUBLE asks for it (TROUBLE_LATER: in a later stage).

``kill METHOD N`` kills it at the N-th call of a method of the task, or of ``build`` where a later stage's is made;
``stop METHOD N [SIGNAL]`` asks it to save and end,
``tear METHOD N BYTES`` lets the system kill it when a file that it writes after that call exceeds BYTES,
``worker METHOD N`` kills a loader process, ``away METHOD N FOLDER`` renames it, ``clock METHOD N FILE TIME`` tells
libfaketime another time, ``memory N`` needs more memory than there is for more than N images, ``times PATH`` writes down
when each step began.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from winnow.builders import builder
from winnow.families.detection.data import digits_data
from winnow.families.detection.models.fcos_tiny import FcosTinySettings, fcos_tiny
from winnow.families.ink.model.inktrace import InktraceSettings, inktrace
from winnow.families.maps.model.map_qformer import MapQformerTinySettings, map_qformer_tiny
from winnow.families.pairs.models.pair_faster_rcnn import PairFasterRcnnTinySettings, pair_faster_rcnn_tiny
from winnow.tracking.history import Entry, History
from winnow.tracking.null_tracker import NullTracker
from winnow.tracking.outbox import OutboxFile


class Troubled:
    """A task that does what ``task`` does, unless it is told otherwise."""

    def __init__(self, task: Any, variable: str) -> None:
        self._task = task
        self._calls: Counter[str] = Counter()
        self._trouble = os.environ.get(variable, "").split()
        self._times: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def forward(self, batch: Any) -> Any:
        if self._trouble[:1] == ["memory"] and batch.num_samples > int(self._trouble[1]):
            torch.empty(10**15)
        return self._troubled("forward", batch)

    def losses(self, *arguments: Any) -> Any:
        return self._troubled("losses", *arguments)

    def predictions(self, *arguments: Any) -> Any:
        return self._troubled("predictions", *arguments)

    def _troubled(self, method: str, *arguments: Any) -> Any:
        self._calls[method] += 1
        kind, *details = self._trouble or [""]
        if kind == "times" and method == "losses":
            self._times.append(time.monotonic())
            Path(details[0]).write_text(json.dumps(self._times))
        elif details[:2] == [method, str(self._calls[method])]:
            act(kind, details[2:])
        return getattr(self._task, method)(*arguments)


def act(kind: str, details: list[str]) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        os.kill(os.getpid(), signal.Signals[details[0]] if details else signal.SIGUSR1)
    elif kind == "tear":
        # Python ignores this signal; as the system means it, it ends a process in the middle of a write.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(details[0]), int(details[0])))
    elif kind == "worker":
        workers = [child for child in psutil.Process().children() if "uploader" not in " ".join(child.cmdline())]
        workers[0].kill()
        time.sleep(0.2)
    elif kind == "clock":
        Path(details[0]).write_text(details[1])
    elif kind == "away":
        Path(details[0]).rename(f"{details[0]}.away")


@builder(FcosTinySettings)
def troubled(**values: Any) -> Troubled:
    """Return the task of ``model=fcos_tiny``, with dropout."""
    return Troubled(with_dropout(values), "TROUBLE")


@builder(FcosTinySettings)
def plainly_troubled(**values: Any) -> Troubled:
    """Return the task of ``model=fcos_tiny`` as it is, its weights other ones where the trouble is that."""
    task = fcos_tiny(**values)
    if os.environ.get("TROUBLE") == "other weights":
        nn.init.zeros_(next(task.model.backbone.parameters()))
    return Troubled(task, "TROUBLE")


@builder(FcosTinySettings)
def troubled_later(**values: Any) -> Troubled:
    """Return the same for a later stage, whose trouble the variable TROUBLE_LATER names."""
    global _built
    _built += 1
    kind, *details = os.environ.get("TROUBLE_LATER", "").split() or [""]
    if details[:2] == ["build", str(_built)]:
        act(kind, details[2:])
    return Troubled(with_dropout(values), "TROUBLE_LATER")


_built = 0


def with_dropout(values: dict[str, Any]) -> Any:
    task = fcos_tiny(**values)
    stages = task.model.backbone.stages
    stages[-1] = nn.Sequential(stages[-1], nn.Dropout2d(0.1))
    return task


@builder(InktraceSettings)
def troubled_ink(**values: Any) -> Troubled:
    """Return the task of ``model=inktrace``."""
    return Troubled(inktrace(**values), "TROUBLE")


@builder(PairFasterRcnnTinySettings)
def troubled_pairs(**values: Any) -> Troubled:
    """Return the task of ``model=pair_faster_rcnn_tiny``."""
    return Troubled(pair_faster_rcnn_tiny(**values), "TROUBLE")


@builder(MapQformerTinySettings)
def troubled_maps(**values: Any) -> Troubled:
    """Return the task of ``model=map_qformer_tiny``."""
    return Troubled(map_qformer_tiny(**values), "TROUBLE")


def unchecked_data(*, loading: Any, **values: Any) -> Any:
    """Return the embedded data set by a builder that brings no check."""
    return digits_data(loading=loading, **values)


class OutboxTracker(NullTracker):
    """Keeps the record of metrics as the MLflow tracker does, and sends it nowhere: no process of two seconds' start."""

    def __init__(self, run_folder: Path, parent_folder: Path | None = None) -> None:
        super().__init__(run_folder, parent_folder)
        path = Path(run_folder) / "outbox.jsonl"
        self._history, self._file = History.read(path), OutboxFile(path)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        entry = Entry(time.time_ns() // 1_000_000, "metrics", {"step": step, "values": dict(metrics)})
        self._file.append(b"".join(event.encode() for event in self._history.events(entry)))
