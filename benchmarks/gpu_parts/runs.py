"""Whole programs on the device: the tests marked ``gpu``, a run of each family, runs that are killed and resumed bit for bit."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_parts.forked import REPOSITORY, Forked, start_training
from gpu_parts.outcome import Figure, Place, Skipped, required
from resume_fuzz import COMPARED, digest

FAMILIES = {
    "detection": ["model=deformable_detr_tiny", "training=smoke"],
    "detection, fcos_tiny": ["training=smoke"],
    "ink": ["model=inktrace", "data=ink_strokes", "training=smoke"],
    "pairs": ["model=pair_faster_rcnn_tiny", "data=pairs_synthetic", "training=smoke", "training.max_iter=20"],
    "pairs, pair_faster_rcnn": [
        "model=pair_faster_rcnn", "model.pretrained=false", "data=pairs_synthetic", "training=smoke", "training.max_iter=4",
    ],
    "maps": ["model=map_qformer_tiny", "data=map_synthetic", "training=smoke", "training.max_iter=20"],
    "maps, map_qformer": [
        "model=map_qformer", "model.pretrained=false", "data=map_synthetic", "training=smoke", "training.max_iter=4",
        "training.batch_size=4",
    ],
}  # fmt: skip
HAS_SHAPELY = importlib.util.find_spec("shapely") is not None
NO_SHAPELY = "the package shapely is not installed"
FEW = ["data.num_train=16", "data.num_val=4"]
DIGITS = ["data.size=64", "data.image_size=64", "model.channels=[8,8,16,16]", "model.head_channels=32"]
INK = [
    "model=inktrace", "data=ink_strokes", "data.image_size=32", "model.channels=[8,8,8]", "model.depths=[1,1,1]",
    "model.embed_dim=16", "model.num_layers=1",
]  # fmt: skip
PAIRS = [
    "model=pair_faster_rcnn_tiny", "data=pairs_synthetic", "data.image_size=64", "model.channels=[8,8,16,16]",
    "model.pyramid_channels=16", "model.head_channels=16", "model.anchor_sizes=[8,12,20]", "training.max_iter=null",
]  # fmt: skip
MAPS = [
    "model=map_qformer_tiny", "data=map_synthetic", "data.image_size=32", "model.channels=[8,16]", "model.width=16",
    "model.num_instances=6", "model.qformer.width=16", "model.qformer.num_heads=2", "model.decoder.num_heads=2",
]  # fmt: skip
RESUMED = {"detection": DIGITS, "ink": INK, "pairs": PAIRS, "maps": MAPS}
KILLED = [
    "training.deterministic=true", "training.resume=auto", "data.num_train=44", "data.num_val=6", "training.batch_size=4",
    "training.accumulate=2", "training.save_every_steps=2", "training.keep_last_n=1",
    "training.ema.decay=0.9", "training.scheduler.warmup_steps=3", "training.num_workers=1",
]  # fmt: skip


class Counts:
    """A plugin of pytest that counts what became of the tests."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.passed and report.when == "call":
            self.passed.append(report.nodeid)


def marked_tests(place: Place) -> Iterator[Figure]:
    """the tests marked gpu"""
    if not place.on_gpu:
        raise Skipped("they need a CUDA device")
    import pytest

    # Only the files that have some: others may import what is not installed on that machine.
    files = [str(path) for path in sorted((REPOSITORY / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    counts = Counts()
    os.chdir(REPOSITORY)
    # This process has imported pytest's plugins already (Hydra brings one), of which pytest warns, and a warning is an error.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main(["-m", "gpu", "-p", "no:cacheprovider", "-q", *quiet, *files], plugins=[counts])
    for name in counts.failed:
        yield required(name.rpartition("::")[2], False, "failed", "passes")
    if not counts.passed and not counts.failed and code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise Skipped("no test ran")
    yield required(
        "tests", code == pytest.ExitCode.OK, f"{len(counts.passed)} passed, pytest ended with {int(code)}", "all pass"
    )


def one_of_each(place: Place) -> Iterator[Figure]:
    """one short run of each family, all at once"""
    began = time.monotonic()
    for name in [name for name in FAMILIES if name.startswith("maps") and not HAS_SHAPELY]:
        yield Figure(name, NO_SHAPELY, verdict="skipped")
    commands = {name: command for name, command in FAMILIES.items() if HAS_SHAPELY or not name.startswith("maps")}
    runs = {name: begin(place, name, [*command, *(FEW if place.smoke else [])]) for name, command in commands.items()}
    for name, process in runs.items():
        code = process.wait(math.inf)
        folder = run_folder(place, name)
        if code != 0:
            yield required(name, False, f"ended with {code}: {last_line(place, name)}", "completed")
            continue
        result = json.loads((folder / "result.json").read_text())
        on_device = f" on {place.device}" in (folder / "train.log").read_text()
        value = result["objective"]
        words = f"{result['status']}, objective {value:.3g}, after {time.monotonic() - began:.0f} s"
        holds = result["status"] == "completed" and on_device and math.isfinite(value)
        yield required(name, holds, words, f"completed on {place.device}")


def resume(place: Place) -> Iterator[Figure]:
    """kill and resume with training.deterministic=true bit for bit, and two equal runs, in bf16 and fp16"""
    modes = list(itertools.product(RESUMED, ("bf16", "fp16")))
    if place.smoke:
        modes = [(family, "bf16" if number else "fp16") for number, family in enumerate(RESUMED)]
    if not HAS_SHAPELY:
        modes = [(family, amp) for family, amp in modes if family != "maps"]
        yield Figure("maps", NO_SHAPELY, verdict="skipped")
    epochs = f"training.max_epochs={3 if place.smoke else 8}"
    commands = {f"{family} {amp}": [*RESUMED[family], *KILLED, epochs, f"training.amp={amp}"] for family, amp in modes}
    begun = {(mode, kind): begin(place, f"{mode} {kind}", commands[mode])
             for mode in commands for kind in ("killed", "whole", "again")}  # fmt: skip
    kill_in_the_middle(place, {mode: begun[mode, "killed"] for mode in commands})
    stood = {mode: step_of(place, f"{mode} killed") for mode in commands}
    for mode, command in commands.items():
        begun[mode, "resumed"] = begin(place, f"{mode} killed", command)
    for mode in commands:
        codes = {kind: begun[mode, kind].wait(math.inf) for kind in ("whole", "again", "resumed")}
        bad = [kind for kind, code in codes.items() if code != 0]
        if bad:
            name = f"{mode} {'killed' if bad[0] == 'resumed' else bad[0]}"
            yield required(mode, False, f"{bad[0]} ended with {codes[bad[0]]}: {last_line(place, name)}", "runs")
            continue
        whole, again, resumed = (read_last(place, f"{mode} {kind}") for kind in ("whole", "again", "killed"))
        yield required(
            f"{mode}: two runs", not differing(whole, again), words_of(differing(whole, again)), "equal bits"
        )
        was_killed = 0 < stood[mode] < whole["step"]
        words = f"killed at step {stood[mode]} of {whole['step']}, {words_of(differing(whole, resumed))}"
        yield required(f"{mode}: resumed", was_killed and not differing(whole, resumed), words, "equal bits")


def kill_in_the_middle(place: Place, runs: dict[str, Forked]) -> None:
    """Kill each run as soon as it has saved once; one that ends by itself is left."""
    waiting = dict(runs)
    while waiting:
        for mode, process in list(waiting.items()):
            if process.poll() is not None:
                del waiting[mode]
            elif (run_folder(place, f"{mode} killed") / "checkpoints" / "last.pth").exists():
                process.kill()
                del waiting[mode]
        time.sleep(0.005)


def begin(place: Place, name: str, command: Sequence[str]) -> Forked:
    """Start a run; its folder is named by ``name``."""
    fixed = ["tracking=off", f"training.device={place.device}", f"hydra.run.dir={run_folder(place, name)}"]
    root = [] if "data=map_synthetic" in command else [f"data.root={place.data}"]  # those maps are drawn in memory
    return start_training([*command, *fixed, *root], place.folder, log_of(place, name), place.is_warm)


def run_folder(place: Place, name: str) -> Path:
    return place.folder / name.replace(", ", "_").replace(" ", "_")


def log_of(place: Place, name: str) -> Path:
    return run_folder(place, name).with_suffix(".log")


def last_line(place: Place, name: str) -> str:
    """Return what the program said last, a line that names an operation without a deterministic kernel first."""
    lines = [line.strip() for line in log_of(place, name).read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "deterministic" in line and "Error" in line]
    return (told or lines or ["nothing printed"])[-1]


def read_last(place: Place, name: str) -> dict[str, Any]:
    path = run_folder(place, name) / "checkpoints" / "last.pth"
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def step_of(place: Place, name: str) -> int:
    """Return the step of the run's last checkpoint, 0 where it has none."""
    path = run_folder(place, name) / "checkpoints" / "last.pth"
    return int(read_last(place, name)["step"]) if path.exists() else 0


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the parts of two checkpoints that are not the same bit for bit."""
    return [key for key in COMPARED if digest(one[key]) != digest(other[key])]


def words_of(different: list[str]) -> str:
    return f"different: {', '.join(different)}" if different else "equal bits"
