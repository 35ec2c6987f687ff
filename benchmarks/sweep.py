"""Sweepers side by side: python benchmarks/sweep.py [empty] [uneven] [digits] [--quick].

`empty`: milliseconds per trial that does nothing, on two slots. Cold is the whole command of 10 trials, start-up included, over
10; warm is what each further trial costs, (a command of 50 − a command of 10) / 40. `uneven`: 16 trials of 1 to 8 seconds on four
slots, against the time in which a slot that is always refilled at once could do them. `digits`: `+sweep=lr_bs` as it ships, 24
trials, with and without pruning. Contestants take turns; the peers need: pip install -e '.[bench]'. What pruning costs on
simulated learning curves is `benchmarks/sweep_curves.py`.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONTESTANTS = Path(__file__).parent / "sweep_contestants"
REPOSITORY = Path(__file__).resolve().parents[1]
UNEVEN = [8, 1, 1, 2, 6, 1, 3, 1, 5, 2, 1, 4, 1, 2, 1, 1]
NUM_COLD, NUM_WARM = 10, 50
PRUNERS = ("none", "median_threshold_short", "forecast")
SMOKE_NAMES = ("winnow, journal", "bare Optuna, threads")
SMOKE_SIZES = (
    "data.num_train=8", "data.num_val=2", "data.size=64", "data.image_size=64", "training.num_workers=0",
    "training.max_epochs=1",
)  # fmt: skip


@dataclass(frozen=True)
class Contestant:
    """How one sweeper is told to run ``trials`` trials on ``slots`` slots."""

    name: str
    hydra: tuple[str, ...] = ()
    peer: str = ""
    in_parallel: bool = True

    def command(self, folder: Path, trials: int, slots: int, seconds: Sequence[float]) -> list[str]:
        tickets = folder / "tickets"
        tickets.mkdir(parents=True)
        storage = f"sqlite:///{folder}/study.db"
        if self.peer:
            return [
                sys.executable, str(CONTESTANTS / "peers.py"), self.peer, str(trials), str(slots), json.dumps(seconds),
                str(tickets), storage,
            ]  # fmt: skip
        told = [part.format(storage=storage, slots=slots) for part in self.hydra]
        return [
            sys.executable, str(CONTESTANTS / "app.py"), "-m", *told, f"tickets={tickets}", f"seconds={json.dumps(seconds)}",
            f"hydra.sweep.dir={folder}/multirun", f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.n_jobs={slots}",
            "hydra.sweeper.study_name=bench", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.direction=minimize",
            "x=interval(0,1)",
        ]  # fmt: skip

    def seconds(self, trials: int, slots: int, seconds: Sequence[float]) -> float:
        """Return wall time of the whole command; RuntimeError unless it ran every trial once."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            command = self.command(folder, trials, slots, seconds)
            environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
            began = time.perf_counter()
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            elapsed = time.perf_counter() - began
            ran = len(list((folder / "tickets").iterdir()))
            if done.returncode != 0 or ran != trials:
                raise RuntimeError(
                    f"{self.name}: exit {done.returncode}, {ran} of {trials} trials\n{done.stderr[-3000:]}"
                )
            return elapsed


WINNOW = ("hydra/sweeper=winnow", "hydra.sweeper.plots=false")
RELEASED = ("hydra/sweeper=optuna", "hydra.sweeper.storage={storage}")
EVERYBODY = (
    Contestant("released, joblib", (*RELEASED, "hydra/launcher=joblib", "hydra.launcher.n_jobs={slots}")),
    Contestant("released, basic", RELEASED, in_parallel=False),
    Contestant("winnow, SQLite", (*WINNOW, "hydra.sweeper.storage={storage}")),
    Contestant("winnow, journal", WINNOW),
    Contestant("winnow, in_process", (*WINNOW, "hydra.sweeper.in_process=true"), in_parallel=False),
    Contestant("Ray Tune", peer="ray"),
    Contestant("Ray Tune, median", peer="ray-median"),
    Contestant("Ray Tune, ASHA", peer="ray-asha"),
    Contestant("bare Optuna, threads", peer="optuna"),
)


def present() -> list[Contestant]:
    """Return those whose packages are installed, and say which are left out."""
    found = []
    for contestant in EVERYBODY:
        package = "ray" if contestant.peer.startswith("ray") else "joblib" if "joblib" in contestant.name else "optuna"
        plugin = "hydra_plugins.hydra_joblib_launcher" if package == "joblib" else package
        if importlib.util.find_spec(plugin) is None:
            print(f"{contestant.name} is left out: {plugin} is not installed")
        else:
            found.append(contestant)
    return found


def empty(everybody: Sequence[Contestant], rounds: int, num_cold: int, num_warm: int) -> None:
    cold: dict[str, list[float]] = {contestant.name: [] for contestant in everybody}
    warm: dict[str, list[float]] = {contestant.name: [] for contestant in everybody}
    for _ in range(rounds):
        for contestant in everybody:
            slots = 2 if contestant.in_parallel else 1
            few = contestant.seconds(num_cold, slots, [0])
            many = contestant.seconds(num_warm, slots, [0])
            cold[contestant.name].append(1000 * few / num_cold)
            warm[contestant.name].append(1000 * (many - few) / (num_warm - num_cold))
            print(
                f"{contestant.name}: {few:.1f} s for {num_cold}, {many:.1f} s for {num_warm}",
                file=sys.stderr,
                flush=True,
            )
    reference = everybody[0].name
    print(f"\nms per empty trial, two slots (one where there is but one), median (least–greatest) of {rounds} rounds")
    print(f"| | cold | of {reference} | warm | of {reference} |\n|---|---|---|---|---|")
    for name in cold:
        cells = [f"{spread(own[name])} | {ratio(own[name], own[reference])}" for own in (cold, warm)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def uneven(everybody: Sequence[Contestant], rounds: int, lengths: Sequence[float]) -> None:
    ideal = refilled(lengths, 4)
    print(
        f"\n{len(lengths)} trials of {min(lengths)}–{max(lengths)} s on four slots; ideal {ideal:.0f} s, one after the other "
        f"{sum(lengths)} s"
    )
    print("| | seconds | start-up | of the ideal, without start-up |\n|---|---|---|---|", flush=True)
    for contestant in (one for one in everybody if one.in_parallel):
        start_up, whole = [], []
        for _ in range(rounds):
            start_up.append(contestant.seconds(4, 4, [0]))
            whole.append(contestant.seconds(len(lengths), 4, lengths))
        share = [(own - start) / ideal for own, start in zip(whole, start_up, strict=True)]
        cells = f"{spread(whole, 1)} | {spread(start_up, 1)} | {spread(share, 2)}"
        print(f"| {contestant.name} | {cells} |", flush=True)


def refilled(seconds: Sequence[float], slots: int) -> float:
    """Return when the last trial ends where each is begun in order by the slot that is free first."""
    free = [0.0] * slots
    for own in seconds:
        heapq.heappush(free, heapq.heappop(free) + own)
    return max(free)


def digits(folder: Path, trials: int, seeds: Sequence[int], pruners: Sequence[str], sizes: Sequence[str]) -> None:
    """Search on digits; study folders stay in ``folder``, so that a second call goes on where the first was stopped."""
    print(
        f"\n+sweep=lr_bs on digits, {trials} trials\n| pruner | sampler seed | best val/map | epochs | seconds of trials |"
    )
    print("|---|---|---|---|---|", flush=True)
    for seed in seeds:
        for pruner in pruners:
            study = folder / f"{pruner}_{seed}"
            command = [
                sys.executable, "train.py", "-m", "+sweep=lr_bs", f"hydra/sweeper/pruner={pruner}", "tracking=off",
                f"hydra.sweep.dir={study}", f"data.root={folder}/digits", f"hydra.sweeper.n_trials={trials}",
                f"hydra.sweeper.sampler.seed={seed}", "hydra.sweeper.plots=false", *sizes,
            ]  # fmt: skip
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(done.stdout[-2000:] + done.stderr[-3000:])
            with (study / "trials.csv").open() as file:
                rows = list(csv.DictReader(file))
            best = max(float(row["final_map"]) for row in rows if row["status"] == "completed")
            epochs = sum(int(row["epochs"] or 0) for row in rows)
            seconds = sum(float(row["seconds"] or 0) for row in rows)
            print(f"| {pruner} | {seed} | {best:.4f} | {epochs} | {seconds:.0f} |", flush=True)


def spread(values: Sequence[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def ratio(own: Sequence[float], reference: Sequence[float]) -> str:
    return spread([one / other for one, other in zip(own, reference, strict=True)], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="empty, uneven, digits; all without")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the sampler, for digits")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the studies of digits lie; they can be continued there"
    )
    parser.add_argument("--quick", action="store_true", help="one round; 6 trials of digits")
    parser.add_argument("--smoke", action="store_true", help="one round of few tiny trials: its figures mean nothing")
    options = parser.parse_args()
    parts = options.parts or ["empty", "uneven", "digits"]
    rounds = 1 if options.quick or options.smoke else options.rounds
    everybody = [one for one in present() if not options.smoke or one.name in SMOKE_NAMES]
    if "empty" in parts:
        empty(everybody, rounds, *((1, 2) if options.smoke else (NUM_COLD, NUM_WARM)))
    if "uneven" in parts:
        uneven(everybody, rounds, [0.2, 0.1, 0.1, 0.1, 0.1] if options.smoke else UNEVEN)
    if "digits" in parts:
        num_trials, sizes = (1, SMOKE_SIZES) if options.smoke else (6 if options.quick else 24, ())
        pruners = PRUNERS[:1] if options.smoke else PRUNERS
        with tempfile.TemporaryDirectory() as temporary:
            digits(options.folder or Path(temporary), num_trials, options.seeds, pruners, sizes)


if __name__ == "__main__":
    main()
