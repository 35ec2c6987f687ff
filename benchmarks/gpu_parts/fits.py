"""Runs as the parts of the check build them: embedded data, no tracking, no weights from the hub."""

from __future__ import annotations

import gc
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contestants.engines import fresh
from gpu_parts.forked import REPOSITORY
from gpu_parts.outcome import Place
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from winnow.config.resolvers import register_resolvers
from winnow.engine.loop import Fit
from winnow.engine.transfer import with_next
from winnow.preflight.peak_memory import PeakMemory
from winnow.protocols import Batch, Tracker
from winnow.run.build import build
from winnow.run.plan import RunPlan
from winnow.tracking.null_tracker import NullTracker

BATCH_SIZE = 4
LARGE = ("model=deformable_detr", "data.size=800", "data.image_size=800", "data.num_train=64", "data.num_val=16")
SMALL = ("model=deformable_detr_tiny", "data.size=64", "data.image_size=64", "data.num_train=16", "data.num_val=4")


@dataclass(frozen=True)
class Speed:
    """Of optimizer steps from batches in memory; ``peak_bytes`` is what torch held on the device, on a CPU the process."""

    images_per_second: float
    peak_bytes: int
    first_step_seconds: float


def overrides(place: Place, *more: str) -> list[str]:
    """Return the command line of ``deformable_detr`` at 800 px in batches of four; in a rehearsal of something tiny."""
    sizes = SMALL if place.smoke else LARGE
    fixed = ["model.pretrained=false", f"training.batch_size={BATCH_SIZE}", "training.num_workers=0"]
    # The last value of a key counts, but Hydra refuses a choice that is made twice.
    model = [value for value in more if value.startswith("model=")]
    return [*(model or sizes[:1]), *sizes[1:], *fixed, *(value for value in more if value not in model)]


def composed(place: Place, command: Sequence[str]) -> dict[str, Any]:
    """Return the config of ``train.py COMMAND`` on the place's device as plain values."""
    register_resolvers()
    fixed = ["tracking=off", f"training.device={place.device}", f"data.root={place.data}"]
    with initialize_config_dir(str(REPOSITORY / "conf")):
        plain: Any = OmegaConf.to_container(compose("config", [*fixed, *command]), resolve=True)
    return dict(plain)


def built(place: Place, command: Sequence[str], tracker: Tracker | None = None) -> Fit:
    """Return the parts of the run, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=place.folder))
    return build(RunPlan.of(composed(place, command), folder, {}, None, None), tracker or NullTracker(folder))


def batches_of(run: Fit, count: int) -> list[Batch]:
    """Return the first training batches, read beforehand and pinned as a loader pins them."""
    batches: list[Any] = list(itertools.islice(run.data.train_batches(1, run.sizes.final), count))
    return [batch.pin_memory() for batch in batches] if run.device.type == "cuda" else batches


def step_speed(run: Fit, steps: int, warm_up: int = 8) -> Speed:
    """Time ``steps`` optimizer steps after ``warm_up`` others (of fp16 the first ones only find the scale)."""
    batches = itertools.cycle(batches_of(run, 4))
    run.task.model.train()
    began = time.perf_counter()
    run.step([fresh(next(batches))], 0)
    synchronise(run.device)
    first = time.perf_counter() - began
    for number in range(1, warm_up):
        run.step([fresh(next(batches))], number)
    synchronise(run.device)
    memory = PeakMemory(run.device)
    memory.restart()
    began, images = time.perf_counter(), 0
    ahead = with_next(([fresh(next(batches))] for _ in range(steps)), run.step.transfer.is_ahead)
    for number, (group, following) in enumerate(ahead, start=warm_up):
        run.step(group, number, following)
        images += group[0].shape[0]
    synchronise(run.device)
    return Speed(images / (time.perf_counter() - began), memory.read(), first)


def synchronise(device: torch.device) -> None:
    """Wait for a GPU: steps are queued faster than it computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget() -> None:
    """Free what a run that is no longer referred to held on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
