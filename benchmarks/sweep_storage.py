"""What each kind of study storage costs per call: `python benchmarks/sweep_storage.py [--trials N] [--rounds N]`.

Each of 1 and of 4 processes asks for N trials (random sampler, two parameters), reports five values for each (median pruner) and
tells it; the kinds take turns, each on a new database per round. Prints the median of each call in milliseconds, the slowest
one, and trials per second of all processes together (the best round's). The database is on the disk of the working folder.
PostgreSQL (Debian's package) is started for it, and left out where it is missing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from winnow.sweep.storage import create_study_once, open_storage

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from postgresql_cluster import Cluster, binaries

SPACE = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "batch": CategoricalDistribution([4, 8, 16])}
NUM_REPORTS = 5
OPTUNAS = "optuna:"  # before a path: Optuna's own journal backend


def open_study(url: str) -> optuna.Study:
    sampler, pruner = optuna.samplers.RandomSampler(), optuna.pruners.MedianPruner()
    if url.startswith(OPTUNAS):
        storage = JournalStorage(JournalFileBackend(url.removeprefix(OPTUNAS)))
        return optuna.create_study(storage=storage, study_name="s", sampler=sampler, pruner=pruner, load_if_exists=True)
    return create_study_once(open_storage(url), "s", ["minimize"], sampler=sampler, pruner=pruner)


def work(url: str, num_trials: int, barrier: Any, results: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(url)
    times: dict[str, list[float]] = {"ask": [], "report": [], "tell": []}

    def timed(name: str, act: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        answer = act(*arguments)
        times[name].append(1000 * (time.perf_counter() - began))
        return answer

    barrier.wait()
    began = time.perf_counter()
    for _ in range(num_trials):
        trial = timed("ask", study.ask, SPACE)
        for step in range(NUM_REPORTS):
            timed("report", report, trial, step)
        timed("tell", study.tell, trial, trial.params["lr"])
    results.put((times, time.perf_counter() - began))


def report(trial: optuna.Trial, step: int) -> bool:
    trial.report(trial.params["lr"], step)
    return trial.should_prune()


def measure(url: str, num_processes: int, num_trials: int) -> tuple[dict[str, list[float]], float]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(num_processes), context.Queue()
    arguments = (url, num_trials, barrier, results)
    processes = [context.Process(target=work, args=arguments) for _ in range(num_processes)]
    for process in processes:
        process.start()
    gathered = [results.get() for _ in processes]
    for process in processes:
        process.join()
    calls = {name: [value for times, _ in gathered for value in times[name]] for name in ("ask", "report", "tell")}
    return calls, num_processes * num_trials / max(seconds for _, seconds in gathered)


def row(rounds: list[tuple[dict[str, list[float]], float]]) -> str:
    calls = {name: [value for times, _ in rounds for value in times[name]] for name in rounds[0][0]}
    medians = " | ".join(f"{statistics.median(values):.1f}" for values in calls.values())
    slowest = max(max(values) for values in calls.values())
    return f"{medians} | {slowest:.0f} | {max(rate for _, rate in rounds):.0f}"


def new_urls(folder: Path, cluster: Cluster | None) -> dict[str, str]:
    urls = {
        "journal": f"{folder}/ours.log",
        "journal, Optuna's backend": f"{OPTUNAS}{folder}/optunas.log",
        "SQLite": f"sqlite:///{folder}/study.db",
    }
    return urls | ({"PostgreSQL": cluster.new_database()} if cluster else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="trials per process and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--smoke", action="store_true", help="1 round of 2 trials in 1 process: its figures mean nothing"
    )
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.trials, arguments.rounds = 2, 1
    print("| storage | processes | ask, 2 parameters | report, should_prune | tell | slowest call | trials/s |")
    print("|---|---|---|---|---|---|---|")
    with ExitStack() as stack:
        cluster = Cluster(is_durable=True) if binaries() else None
        if cluster:
            stack.callback(cluster.close)
        for num_processes in (1,) if arguments.smoke else (1, 4):
            results = defaultdict(list)
            for _ in range(arguments.rounds):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
                for name, url in new_urls(folder, cluster).items():
                    results[name].append(measure(url, num_processes, arguments.trials))
            for name, rounds in results.items():
                print(f"| {name} | {num_processes} | {row(rounds)} |", flush=True)


if __name__ == "__main__":
    main()
