"""What pruning costs and saves on learning curves: `python benchmarks/sweep_curves.py [--seeds N] [--quick] [--curves FILE]`.

Searches of 64 trials × 50 epochs on 4 slots of a virtual clock (a freed slot gets the next trial at once), by TPE and by random
sampling, on four families of simulated curves, through the pruners that `hydra/sweeper/pruner` builds and an Optuna study in
memory. Each row is the mean over seeds: epochs spent, regret (optimum − what the chosen trial is really worth, × 1000), and the
difference of the regret to no pruning with the same seed, ± its standard error. `--curves FILE` replays recorded curves instead:
a JSON list of {"params": {…}, "values": [one per epoch]}, larger is better.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from curves.sources import FAMILIES, CurveSource, RecordedCurves, SimulatedCurves
from omegaconf import OmegaConf
from optuna.trial import TrialState

from hydra_plugins.winnow_sweeper._pruner_building import build_pruner
from hydra_plugins.winnow_sweeper.pruner_configs import PRUNERS
from winnow.sweep.pruners import default_warmup

NUM_SLOTS = 4
# A warm-up of WARMUP is a fifth of the epochs, as ours have it; a first rung of RUNG is a twelfth (4 of 50).
WARMUP, RUNG = "warmup", "rung"
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "threshold 0.3 after warm-up": ("threshold", {"lower": 0.3, "n_warmup_steps": WARMUP}),
    "median, Optuna's defaults": ("median", {}),
    "median, 8 start-up trials, warm-up": ("median", {"n_startup_trials": 8, "n_warmup_steps": WARMUP}),
    "median_threshold 0.5": ("median_threshold", {"threshold": 0.5}),
    "hyperband, factor 3": ("hyperband", {"min_resource": RUNG}),
    "successive halving, factor 3": ("successive_halving", {"min_resource": RUNG, "reduction_factor": 3}),
    "forecast z=1": ("forecast", {}),
    "forecast z=2": ("forecast", {"z": 2.0}),
}


class Searched(NamedTuple):
    epochs: int
    regret: float


def search(source: CurveSource, sampler: str, line: str, seed: int) -> Searched:
    """Run one search of ``source.num_trials`` trials: what it spent, and how far what it chose is from the optimum."""
    choice, changes = LINES[line]
    lengths = {WARMUP: default_warmup(source.epochs), RUNG: max(1, source.epochs // 12)}
    changed = {name: lengths.get(value, value) for name, value in changes.items()}
    node: Any = OmegaConf.merge(OmegaConf.structured(PRUNERS[choice]), changed)
    study = optuna.create_study(
        study_name=f"{sampler} {seed}",
        direction="maximize",
        sampler=build_sampler(sampler, seed),
        pruner=build_pruner(node, source.epochs),
    )
    space, spent, started, clock = source.space, 0, 0, 0.0
    running: list[tuple[float, int, int, optuna.Trial, Any]] = []
    while started < source.num_trials or running:
        while len(running) < NUM_SLOTS and started < source.num_trials:
            trial = study.ask(space)
            values = source.draw(trial.params, trial.number, seed)
            heapq.heappush(running, (clock + source.seconds_per_epoch(trial.params), trial.number, 1, trial, values))
            started += 1
        clock, number, epoch, trial, values = heapq.heappop(running)
        spent += 1
        trial.report(values[epoch - 1], epoch)
        # As `fit` does: a run in its last epoch is not asked about.
        if epoch == len(values):
            study.tell(trial, values[-1])
        elif trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
        else:
            heapq.heappush(running, (clock + source.seconds_per_epoch(trial.params), number, epoch + 1, trial, values))
    # The best finished trial; where a pruner let none finish, the best of the stopped.
    told = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    best = max(told, key=lambda trial: (trial.state == TrialState.COMPLETE, trial.value))
    return Searched(spent, source.optimum - source.truth(best.params, best.number, seed))


def build_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


def search_all(case: tuple[str, str, int], curves: Path | None) -> tuple[tuple[str, str, int], dict[str, Searched]]:
    """Run all pruners on the same curves with the same seed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    family, sampler, seed = case
    source: CurveSource = RecordedCurves.read(curves, seed) if curves else SimulatedCurves(family, seed)
    return case, {line: search(source, sampler, line, seed) for line in LINES}


def table(results: list[dict[str, Searched]]) -> list[str]:
    """Return the rows of one family and sampler."""
    rows = []
    none = np.array([result["none"] for result in results])
    for line in LINES:
        ours = np.array([result[line] for result in results])
        share, gap = ours[:, 0].mean() / none[:, 0].mean(), 1000 * (ours[:, 1] - none[:, 1])
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else float("nan")
        difference = "" if line == "none" else f"{gap.mean():+.1f} ± {error:.1f}"
        rows.append(
            f"| {line} | {ours[:, 0].mean():.0f} | {share:.2f} | {1000 * ours[:, 1].mean():.1f} | {difference} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two seeds: shows that it runs, proves nothing")
    parser.add_argument("--smoke", action="store_true", help="one seed, one family, random sampling: proves nothing")
    parser.add_argument("--curves", type=Path, default=None, help="JSON of recorded curves to replay instead")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    num_seeds = 1 if options.smoke else 2 if options.quick else options.seeds
    seeds = range(options.first_seed, options.first_seed + num_seeds)
    kinds = (
        [("recorded", "random")]
        if options.curves
        else [(family, name) for family in FAMILIES for name in ("tpe", "random")]
    )
    kinds = [("crossing", "random")] if options.smoke else kinds
    cases = [(family, sampler, seed) for seed in seeds for family, sampler in kinds]
    begin, results = time.monotonic(), {}
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for case, result in pool.imap_unordered(partial(search_all, curves=options.curves), cases):
            results[case] = result
            print(f"\r{len(results)}/{len(cases)}", end="", file=sys.stderr, flush=True)
    print(f"\n{len(seeds)} seeds from {seeds[0]}, {time.monotonic() - begin:.0f} s", file=sys.stderr)
    for family, sampler in kinds:
        print(f"\n**{family} curves, {sampler} sampling**\n")
        print("| pruner | epochs | share | regret ×10⁻³ | to no pruning |\n|---|---|---|---|---|")
        print("\n".join(table([results[family, sampler, seed] for seed in seeds])))


if __name__ == "__main__":
    main()
