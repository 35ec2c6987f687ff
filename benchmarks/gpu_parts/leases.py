"""GPU leases: two sweeps at once on a machine with one card."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from gpu_parts.forked import Forked, start_training
from gpu_parts.outcome import Figure, Place, required

SWEEP = [
    "-m", "+sweep=lr_bs", "budget=smoke", "tracking=off", "data.num_train=16", "data.num_val=4", "training.num_workers=0",
    "data.size=64", "data.image_size=64", "training.max_epochs=2", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1",
    "hydra.sweeper.plots=false",
]  # fmt: skip


def leases(place: Place) -> Iterator[Figure]:
    """two sweeps started at once on one card: trials never share it, the later one waits and says for what"""
    card = "0" if place.on_gpu else f"rehearsal-{os.getpid()}"  # no card, but the lock is the same
    sweeps = {name: begin(place, name, card) for name in ("first", "second")}
    holder = wait_for_trial(place, sweeps)
    other = next(name for name in sweeps if name != holder)
    said = held_until_asked(place, sweeps[holder], other, sweeps[other])
    for name, sweep in sweeps.items():
        code = sweep.wait(math.inf)
        error = "" if code == 0 else f": {' '.join(log_of(place, name).split())[-200:]}"
        yield required(f"{name} sweep", code == 0, f"ended with {code}{error}", "completes")
    yield required("the later sweep", said, "names the holder" if said else "does not", "waits and names the holder")
    one, two = (trial_times(place, name) for name in sweeps)
    shared = sum(a[0] < b[1] and b[0] < a[1] for a in one for b in two)
    words = f"{len(one)} and {len(two)} trials, {shared} pairs at the same time"
    yield required("trials", bool(one and two) and not shared, words, "never share the card")


def begin(place: Place, name: str, card: str) -> Forked:
    """Start a sweep with a study folder of its own."""
    fixed = [
        f"data.root={place.data}", f"hydra.sweep.dir={place.folder / name}", f"hydra.sweeper.study_name={name}",
        f"hydra.sweeper.devices=[{card}]", f"training.device={place.device}",
    ]  # fmt: skip
    environment = {} if place.on_gpu else {"CUDA_VISIBLE_DEVICES": card}
    return start_training([*SWEEP, *fixed], place.folder, place.folder / f"{name}.log", place.is_warm, environment)


def wait_for_trial(place: Place, sweeps: Mapping[str, Forked]) -> str:
    """Wait until a sweep's first trial trains, and return that sweep's name; the first one's where one has ended before that."""
    while all(sweep.poll() is None for sweep in sweeps.values()):
        for name in sweeps:
            if list((place.folder / name).glob("*/config.yaml")):
                return name
        time.sleep(0.02)
    return next(iter(sweeps))


def held_until_asked(place: Place, holder: Forked, name: str, other: Forked) -> bool:
    """Return whether the sweep ``name`` says that it waits for ``holder``, which is stopped until then: on a busy machine it may
    be done with all its trials before the other one asks for the card."""
    words = f"process {holder.pid}"
    if holder.poll() is None:
        os.kill(holder.pid, signal.SIGSTOP)
    while words not in log_of(place, name) and other.poll() is None:
        time.sleep(0.02)
    if holder.poll() is None:
        os.kill(holder.pid, signal.SIGCONT)
    return words in log_of(place, name)


def log_of(place: Place, name: str) -> str:
    """Return what the sweep has printed."""
    path = place.folder / f"{name}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def trial_times(place: Place, name: str) -> list[tuple[float, float]]:
    """Return when each trial began and ended, in Unix seconds, by the files that a run writes first and last."""
    return [(path.stat().st_mtime, ended(path.parent)) for path in sorted((place.folder / name).glob("*/config.yaml"))]


def ended(run: Path) -> float:
    result = run / "result.json"
    return result.stat().st_mtime if result.exists() else math.inf
