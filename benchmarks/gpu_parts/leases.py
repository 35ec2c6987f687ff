"""GPU leases: two sweeps at once on a machine with one card."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_parts.forked import Forked, start_training
from gpu_parts.outcome import Figure, Place, required

SWEEP = [
    "-m", "+sweep=lr_bs", "budget=smoke", "tracking=off", "data.num_train=16", "data.num_val=4", "training.num_workers=0",
    "data.size=64", "data.image_size=64", "training.max_epochs=2", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1",
    "hydra.sweeper.plots=false",
]  # fmt: skip


def leases(place: Place) -> Iterator[Figure]:
    """two sweeps at once on one card: trials never share it, the second sweep waits and says for what"""
    card = "0" if place.on_gpu else f"rehearsal-{os.getpid()}"  # no card, but the lock is the same
    first = begin(place, "first", card)
    wait_for_trial(place, "first", first)
    second = begin(place, "second", card)
    codes = {"first": first.wait(math.inf), "second": second.wait(math.inf)}
    said = (place.folder / "second.log").read_text(errors="replace")
    error = " ".join(said.split())[-200:]
    yield required("first sweep", codes["first"] == 0, f"ended with {codes['first']}", "completes")
    yield required(
        "second sweep", codes["second"] == 0, f"ended with {codes['second']}{'' if codes['second'] == 0 else ': ' + error}",
        "waits, then completes",
    )  # fmt: skip
    names_holder = f"process {first.pid}" in said
    yield required(
        "says for what", names_holder, "names the holder" if names_holder else "does not", "names the holder"
    )
    times = {name: trial_times(place, name) for name in codes}
    shared = [
        (one, other) for one in times["first"] for other in times["second"] if one[0] < other[1] and other[0] < one[1]
    ]
    counts = " and ".join(str(len(trials)) for trials in times.values())
    yield required(
        "trials", not shared, f"{counts} trials, {len(shared)} pairs at the same time", "never share the card"
    )


def begin(place: Place, name: str, card: str) -> Forked:
    """Start a sweep with a study folder of its own."""
    fixed = [
        f"data.root={place.data}", f"hydra.sweep.dir={place.folder / name}", f"hydra.sweeper.study_name={name}",
        f"hydra.sweeper.devices=[{card}]", f"training.device={place.device}",
    ]  # fmt: skip
    environment = {} if place.on_gpu else {"CUDA_VISIBLE_DEVICES": card}
    return start_training([*SWEEP, *fixed], place.folder, place.folder / f"{name}.log", place.is_warm, environment)


def wait_for_trial(place: Place, name: str, sweep: Forked) -> None:
    """Wait until the sweep's first trial trains, or the sweep has ended."""
    while sweep.poll() is None and not list((place.folder / name).glob("*/config.yaml")):
        time.sleep(0.02)


def trial_times(place: Place, name: str) -> list[tuple[float, float]]:
    """Return when each trial began and ended, in Unix seconds, by the files that a run writes first and last."""
    return [(path.stat().st_mtime, ended(path.parent)) for path in sorted((place.folder / name).glob("*/config.yaml"))]


def ended(run: Path) -> float:
    result = run / "result.json"
    return result.stat().st_mtime if result.exists() else math.inf
