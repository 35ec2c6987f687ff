"""What tracking costs training: python benchmarks/tracking.py [--quick].

Two tables. The first times `log_metrics` itself, 2 ms apart, and what all threads of this process use per call. The second
trains fcos_tiny as shipped (digits, 16 images, from memory) with tracking off, on with an SQLite store, on with a server that
does not exist, and off with TensorBoard files, logging every 20 steps as shipped and at every step, in blocks of 20 steps by
turns. An uploader only runs during the blocks of its own tracker, so that its work is counted there.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import torch
from contestants.engines import assembled, fresh, in_memory
from engine import SMOKE, composed

from winnow.tracking.mlflow_tracker import MlflowTracker
from winnow.tracking.null_tracker import NullTracker
from winnow.tracking.tensorboard import TensorBoardTracker

SETTINGS: dict[str, Any] = {
    "experiment": "benchmark",
    "run_name": None,
    "parent_run_id": None,
    "tags": {},
    "drain_seconds": 20,
    "system_metrics_seconds": 10,
    "log_checkpoints": False,
}
KINDS = ("off", "sqlite", "server down", "tensorboard")
METRICS = {f"train/loss_{n}": 0.123456789 * n for n in range(10)}
BLOCK = 20

Tracker = MlflowTracker | NullTracker | TensorBoardTracker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=400, help="of log_metrics, per kind")
    parser.add_argument("--rounds", type=int, default=12, help=f"of a block of {BLOCK} steps per kind and interval")
    parser.add_argument("--quick", action="store_true", help="100 calls, 3 rounds")
    parser.add_argument("--smoke", action="store_true", help="10 calls, 1 round, 1 interval: its figures mean nothing")
    options = parser.parse_args()
    calls, rounds = (100, 3) if options.quick else (10, 1) if options.smoke else (options.calls, options.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        print(f"log_metrics of {len(METRICS)} metrics, {calls} calls 2 ms apart")
        print(f"{'tracking':<12} {'median':>10} {'95 %':>10} {'99 %':>10} {'CPU of all threads':>20}")
        for kind in KINDS:
            times, used = call_times(build(kind, Path(temporary) / "calls" / kind), calls)
            shown = "".join(f" {1e6 * percentile(times, share):7.1f} µs" for share in (0.5, 0.95, 0.99))
            print(f"{kind:<12}{shown} {1e6 * used:17.1f} µs", flush=True)
        step = training_step(Path(temporary), SMOKE if options.smoke else ())
        for interval in (BLOCK,) if options.smoke else (BLOCK, 1):
            compare(Path(temporary) / f"every_{interval}", step, interval, rounds)


def build(kind: str, folder: Path) -> Tracker:
    folder.mkdir(parents=True)
    if kind == "off":
        return NullTracker(folder)
    if kind == "tensorboard":
        return TensorBoardTracker(NullTracker(folder), folder)
    if kind == "server down":
        return MlflowTracker(folder, uri="http://127.0.0.1:9", **{**SETTINGS, "drain_seconds": 0})
    return MlflowTracker(folder, uri=f"sqlite:///{folder.parents[1]}/mlflow.db", **SETTINGS)


def call_times(tracker: Tracker, calls: int) -> tuple[list[float], float]:
    """Return seconds of each `log_metrics` call, and of CPU that this process used per call until all was written."""
    times = []
    with tracker:
        tracker.log_metrics(METRICS, 0)
        tracker.flush()
        began = time.process_time()
        for step in range(1, calls + 1):
            start = time.perf_counter()
            tracker.log_metrics(METRICS, step)
            times.append(time.perf_counter() - start)
            time.sleep(0.002)
        tracker.flush()
        used = time.process_time() - began
    return times, used / calls


def training_step(folder: Path, sizes: tuple[str, ...]) -> Callable[[], None]:
    """Take one update of fcos_tiny as composed from conf/."""
    run = assembled(composed("fcos_tiny", folder, sizes))
    batches = itertools.cycle(in_memory(run.data))
    numbers = itertools.count()
    run.task.model.train()

    def step() -> None:
        run.step([fresh(next(batches))], next(numbers))

    return step


def compare(folder: Path, step: Callable[[], None], interval: int, rounds: int) -> None:
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        trackers: dict[str, Tracker] = {kind: build(kind, folder / kind) for kind in KINDS}
        for tracker in trackers.values():
            stack.enter_context(tracker)
        time.sleep(5)  # the uploaders start up
        before, began = cpu_seconds(trackers), dict.fromkeys(KINDS, 0.0)
        for number in range(-1, rounds):
            for kind in KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]:
                run_only(trackers, kind)
                start = time.perf_counter()
                for index in range(BLOCK):
                    step()
                    if (index + 1) % interval == 0:
                        trackers[kind].log_metrics(METRICS, (number + 1) * BLOCK + index)
                elapsed = time.perf_counter() - start
                began[kind] += elapsed
                if number >= 0:
                    seconds[kind].append(elapsed / BLOCK)
        shares = {kind: used / began[kind] for kind, used in subtract(cpu_seconds(trackers), before).items()}
        run_only(trackers, None)
    print(f"\nfcos_tiny, logged every {interval} steps, {rounds} rounds, {torch.get_num_threads()} threads")
    print(f"{'tracking':<12} {'ms/step':>8} {'longer than off (median, quartiles of rounds)':>48} {'uploader CPU':>13}")
    for kind in KINDS:
        extra = sorted(own - off for own, off in zip(seconds[kind], seconds["off"], strict=True))
        middle, low, high = (percentile(extra, share) for share in (0.5, 0.25, 0.75))
        off = statistics.median(seconds["off"])
        shown = f"{1e3 * middle:+.3f} ms ({100 * middle / off:+.2f} %), {1e3 * low:+.3f} to {1e3 * high:+.3f} ms"
        print(
            f"{kind:<12} {1e3 * statistics.median(seconds[kind]):8.2f} {shown:>48} {100 * shares[kind]:11.1f} %",
            flush=True,
        )


def run_only(trackers: dict[str, Tracker], chosen: str | None) -> None:
    """Hold the uploaders of all other trackers; with None let all run."""
    for kind, tracker in trackers.items():
        if isinstance(tracker, MlflowTracker) and tracker.uploader_pid:
            uploader = psutil.Process(tracker.uploader_pid)
            uploader.resume() if chosen in (kind, None) else uploader.suspend()


def cpu_seconds(trackers: dict[str, Tracker]) -> dict[str, float]:
    """Return what each tracker's uploader process has used so far."""
    used = dict.fromkeys(trackers, 0.0)
    for kind, tracker in trackers.items():
        if isinstance(tracker, MlflowTracker) and tracker.uploader_pid:
            spent = psutil.Process(tracker.uploader_pid).cpu_times()
            used[kind] = spent.user + spent.system
    return used


def subtract(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {kind: after[kind] - before[kind] for kind in after}


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


if __name__ == "__main__":
    main()
