"""What tracking costs the training thread: `python benchmarks/tracking.py [--steps N] [--step-ms MS]`.

Two tables. The first times `log_metrics` itself, paced as a training would be. The second runs a loop of fixed arithmetic
with tracking off, on with an SQLite store, and on with a server that does not exist, and compares the time per step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import torch

from winnow.tracking.mlflow_tracker import MlflowTracker
from winnow.tracking.null_tracker import NullTracker

SETTINGS: dict[str, Any] = {
    "experiment": "benchmark",
    "run_name": None,
    "parent_run_id": None,
    "tags": {},
    "drain_seconds": 20,
    "system_metrics_seconds": 10,
    "log_checkpoints": False,
}
KINDS = ("off", "sqlite", "server down")
METRICS = {f"train/loss_{n}": 0.123456789 * n for n in range(10)}


def build(kind: str, folder: Path) -> MlflowTracker | NullTracker:
    folder.mkdir(parents=True)
    if kind == "off":
        return NullTracker(folder)
    if kind == "server down":
        return MlflowTracker(folder, uri="http://127.0.0.1:9", **{**SETTINGS, "drain_seconds": 0})
    return MlflowTracker(folder, uri=f"sqlite:///{folder.parents[1]}/mlflow.db", **SETTINGS)


def work_of(step_ms: float) -> Callable[[], None]:
    """A step of about ``step_ms`` of matrix products on one core."""
    matrix = torch.rand(128, 128)

    def products(count: int) -> None:
        for _ in range(count):
            matrix @ matrix

    products(200)
    start = time.perf_counter()
    products(500)
    per_product = (time.perf_counter() - start) / 500
    count = max(1, round(step_ms / 1000 / per_product))
    return lambda: products(count)


def call_times(tracker: MlflowTracker | NullTracker, steps: int) -> list[float]:
    """Seconds of each `log_metrics` call, 2 ms apart."""
    times = []
    with tracker:
        for step in range(steps):
            start = time.perf_counter()
            tracker.log_metrics(METRICS, step)
            times.append(time.perf_counter() - start)
            time.sleep(0.002)
    return times


def step_times(folder: Path, work: Callable[[], None], blocks: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Kind → seconds of each step, in blocks of 20 by turns while all trackers are open; kind → its uploader's CPU share."""
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        trackers = {kind: stack.enter_context(build(kind, folder / kind)) for kind in KINDS}
        time.sleep(5)  # the uploaders start up
        before, start = cpu_seconds(trackers), time.perf_counter()
        for block in range(3 * blocks):
            kind = KINDS[(block + block // 3) % 3]
            for step in range(20):
                begin = time.perf_counter()
                work()
                trackers[kind].log_metrics(METRICS, 20 * block + step)
                times[kind].append(time.perf_counter() - begin)
        elapsed, after = time.perf_counter() - start, cpu_seconds(trackers)
    return times, {kind: (after[kind] - before[kind]) / elapsed for kind in KINDS}


def cpu_seconds(trackers: dict[str, MlflowTracker | NullTracker]) -> dict[str, float]:
    """What each tracker's uploader process has used so far."""
    used = dict.fromkeys(trackers, 0.0)
    for kind, tracker in trackers.items():
        if isinstance(tracker, MlflowTracker) and tracker.uploader_pid:
            spent = psutil.Process(tracker.uploader_pid).cpu_times()
            used[kind] = spent.user + spent.system
    return used


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=400, help="of log_metrics, per kind")
    parser.add_argument("--blocks", type=int, default=25, help="of 20 steps, per kind")
    parser.add_argument("--step-ms", type=float, default=20.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        print(f"log_metrics of {len(METRICS)} metrics, {arguments.calls} calls 2 ms apart")
        print(f"{'tracking':<12} {'median':>10} {'95 %':>10} {'99 %':>10}")
        for kind in KINDS:
            times = call_times(build(kind, Path(temporary) / "calls" / kind), arguments.calls)
            shown = [1e6 * percentile(times, share) for share in (0.5, 0.95, 0.99)]
            print(f"{kind:<12}" + "".join(f" {value:7.1f} µs" for value in shown))
        steps, shares = step_times(Path(temporary) / "steps", work_of(arguments.step_ms), arguments.blocks)
        print(f"\nbusy loop with one call per step, {20 * arguments.blocks} steps each, in blocks of 20 by turns")
        print(f"{'tracking':<12} {'median':>10} {'25 %':>10} {'25 % − off':>20} {'uploader CPU':>13}")
        off = percentile(steps["off"], 0.25)
        for kind, times in steps.items():
            quick = percentile(times, 0.25)  # on a shared machine the quick quarter is the quiet one
            extra = f"{1e6 * (quick - off):+.0f} µs ({100 * (quick / off - 1):+.2f} %)"
            numbers = f"{1e3 * percentile(times, 0.5):7.3f} ms {1e3 * quick:7.3f} ms"
            print(f"{kind:<12} {numbers} {extra:>20} {100 * shares[kind]:11.1f} %")


if __name__ == "__main__":
    main()
