"""Kills a training N times at random instants and resumes it: python benchmarks/resume_fuzz.py N.

Each case is a run of its own, killed (SIGKILL) once at an instant drawn over its whole length, start-up included, then resumed
by the command that began it (``training.resume=auto``), with another number of loader processes. Its last checkpoint and all it
logged are compared with those of a run that nobody killed: weights, optimizer, EMA, scaler, random numbers, metrics, best, and
each (metric, step, value) of the tracker's record. Prints the cases that differ, and ends with exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
RUN = [
    "data.num_train=44", "data.num_val=6", "data.size=64", "data.image_size=64", "training.batch_size=4",
    "training.accumulate=2", "training.max_epochs=8", "training.log_interval=2",
    "training.save_every_steps=2", "training.ema.decay=0.9", "training.scheduler.warmup_steps=3",
    "training.resize_schedule=[[1,32],[4,64]]", "training.amp=fp16", "training.keep_last_n=1", "training.save_interval=2",
    "training.early_stopping.patience=7", "model.channels=[8,8,16,16]", "model.head_channels=32",
    "tracking.system_metrics_seconds=null", "tracking.log_checkpoints=false", "training.resume=auto",
]  # fmt: skip
SMOKE = ["data.num_train=12", "data.num_val=2", "training.max_epochs=2", "training.resize_schedule=null"]
COMPARED = (
    "epoch", "step", "model_state_dict", "training_state_dict", "optimizer_state_dict", "scaler_state_dict", "ema_state_dict",
    "rng", "metrics", "best",
)  # fmt: skip
# Wall-clock numbers differ by nature.
NOT_COMPARED = ("perf/", "cost/seconds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=int, nargs="?", default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--smoke", action="store_true", help="1 case")
    options = parser.parse_args()
    if options.smoke:
        options.cases = 1
    run = [*RUN, *(SMOKE if options.smoke else ())]
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train(folder, run, "data", wait=True)  # draws the data set, so that no case has to
        began = time.monotonic()
        train(folder, run, "whole", wait=True)
        length = time.monotonic() - began
        expected = fingerprint(folder / "whole")
        differing = 0
        for case in range(options.cases):
            instant = rng.uniform(0, length)
            workers = case % 3, (case + 1 + case // 3 % 2) % 3
            stage = killed_and_resumed(folder, run, f"case_{case}", instant, workers)
            found = fingerprint(folder / f"case_{case}")
            different = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
            differing += bool(different)
            verdict = f"DIFFERS: {different[:8]}" if different else "identical"
            print(
                f"case {case:3d}  killed at {instant:5.2f} s, {stage:24s} workers {workers[0]} → {workers[1]}  {verdict}",
                flush=True,
            )
    print(f"{options.cases} kills within {length:.1f} s: {options.cases - differing} identical, {differing} different")
    return int(differing > 0)


def train(folder: Path, run: list[str], name: str, wait: bool, num_workers: int = 1) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "train.py"), *run]
    command += [f"training.num_workers={num_workers}", f"hydra.run.dir={name}"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if wait:
        output, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{name} ended with {process.returncode}:\n{output}")
    return process


def killed_and_resumed(folder: Path, run: list[str], name: str, instant: float, workers: tuple[int, int]) -> str:
    """Return where the run stood when it was killed."""
    process = train(folder, run, name, wait=False, num_workers=workers[0])
    time.sleep(instant)
    process.kill()
    process.communicate()
    last = folder / name / "checkpoints" / "last.pth"
    stage = "before the first save"
    if last.exists():
        checkpoint = torch.load(last, weights_only=True)
        stage = f"after epoch {checkpoint['epoch']} step {checkpoint['step']}"
    train(folder, run, name, wait=True, num_workers=workers[1])
    return stage


def fingerprint(run: Path) -> dict[str, str]:
    """Return a hash per part of the last checkpoint, and one per metric of the record."""
    checkpoint = torch.load(run / "checkpoints" / "last.pth", weights_only=True)
    parts = {key: digest(checkpoint[key]) for key in COMPARED}
    history: dict[str, list[tuple[int, Any]]] = {}
    for line in (run / "tracking" / "outbox.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["kind"] == "metrics":
            for metric, value in event["payload"]["values"].items():
                if not metric.startswith(NOT_COMPARED):
                    history.setdefault(metric, []).append((event["payload"]["step"], value))
    return parts | {f"history of {metric}": digest(points) for metric, points in history.items()}


def digest(value: Any) -> str:
    sha = hashlib.sha256()
    feed(sha, value)
    return sha.hexdigest()


def feed(sha: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
        sha.update(value.numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            sha.update(str(key).encode())
            feed(sha, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            feed(sha, item)
    else:
        sha.update(repr(value).encode())


if __name__ == "__main__":
    sys.exit(main())
