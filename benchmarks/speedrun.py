"""How long a good model takes: `python benchmarks/speedrun.py [--seeds N] [--weights FILE] [--data FOLDER]`.

Trains `+experiment=small_set` from random weights and `small_set_imagenet` from ImageNet's, on BCCD, with one seed after
another, the two in turn. Each run is a process of its own, start-up and evaluations included: wall and CPU seconds, and the final
val/map (not the best). Every run is recorded as it ends, and the same command goes on with those that are missing; one that was
cut is done anew. `--smoke` trains the embedded digits for an epoch: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from scipy.stats import ttest_1samp

from winnow.config.quoting import quoted_override
from winnow.run_folder import write_whole
from winnow.start.steps import weights_at_hand

AIM = 0.58
BCCD = Path(__file__).parents[2] / "shared" / "data" / "bccd"
ALWAYS = ["tracking=off", "report=false"]
SMOKE = [
    "data.num_train=8", "data.num_val=4", "data.size=64", "training.max_epochs=1", "training.num_workers=0",
    "training.resize_schedule=null", "data.image_size=64",
]  # fmt: skip

Record = dict[str, float | str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=BCCD, help="a folder that data=coco reads")
    parser.add_argument("--weights", type=Path, help="MobileNetV2's of ImageNet; default: those at hand, else none")
    parser.add_argument(
        "--out", type=Path, default=Path(".speedrun"), help="for runs and results.json; default: .speedrun"
    )
    parser.add_argument("--only", choices=("small_set", "small_set_imagenet"))
    parser.add_argument("overrides", nargs="*", help="of every run")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    weights = options.weights or weights_at_hand()
    if not options.smoke and not options.data.is_dir():
        print(f"skipped: {options.data} is not there")
        return
    data = SMOKE if options.smoke else ["data=coco", quoted_override("data.root", str(options.data.absolute()))]
    cases = {"small_set": [*data, *options.overrides]}
    if options.smoke or weights is not None:
        start = "false" if options.smoke or weights is None else str(weights.absolute())
        cases["small_set_imagenet"] = [*data, quoted_override("model.pretrained", start), *options.overrides]
    else:
        print("without ImageNet's weights, which are not at hand: --weights FILE")
    for seed in range(1 if options.smoke else options.seeds):
        for recipe, overrides in cases.items():
            if options.only in (None, recipe):
                run_once(options.out, recipe, seed, [*overrides, *ALWAYS])
    print("\n".join(table(read_records(options.out), options.overrides)))


def read_records(out: Path) -> list[Record]:
    """Return what was recorded in ``out``, one record per run."""
    path = out / "results.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def run_once(out: Path, recipe: str, seed: int, overrides: list[str]) -> None:
    """Train with one seed, unless that is recorded, and record it."""
    records, key = read_records(out), {"recipe": recipe, "seed": seed, "overrides": " ".join(overrides)}
    if any(key.items() <= record.items() for record in records):
        return
    folder = out / f"{recipe}_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "winnow", "train", f"+experiment={recipe}", *overrides, f"training.seed={seed}",
        quoted_override("hydra.run.dir", str(folder)),
    ]  # fmt: skip
    before, began = cpu_seconds(), time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, cpu = time.perf_counter() - began, cpu_seconds() - before
    if ended.returncode != 0:
        raise RuntimeError(f"{recipe}, seed {seed}: exit code {ended.returncode}\n{ended.stderr}")
    result = json.loads((folder / "result.json").read_text())
    load = os.getloadavg()[2]
    own = {"wall": wall, "cpu": cpu, "val_map": result["metrics"]["val/map"], "load": load}
    print(
        f"{recipe} seed {seed}: {wall:.0f} s, CPU {cpu:.0f} s, val/map {own['val_map']:.4f} (load {load:.1f})",
        flush=True,
    )
    write_whole(out / "results.json", json.dumps([*records, key | own], indent=1) + "\n")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def cpu_seconds() -> float:
    """Return what all processes started here, and theirs, have taken so far, once they have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(records: list[Record], overrides: list[str]) -> list[str]:
    """Return a row per recipe: means and standard deviations over seeds, and the p-value of a mean of at most AIM."""
    rows = [
        f"| recipe | runs | wall s | CPU s | final val/map | p (mean ≤ {AIM}) | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe in dict.fromkeys(str(record["recipe"]) for record in records):
        own = [
            record for record in records
            if record["recipe"] == recipe and all(text in str(record["overrides"]).split() for text in overrides)
        ]  # fmt: skip
        if not own:
            continue
        columns = {name: [float(record[name]) for record in own] for name in ("wall", "cpu", "val_map", "load")}
        p = ttest_1samp(columns["val_map"], AIM, alternative="greater").pvalue if len(own) > 1 else float("nan")
        cells = [
            recipe,
            str(len(own)),
            *(spread(columns[name], digits) for name, digits in (("wall", 0), ("cpu", 0), ("val_map", 4))),
        ]
        rows.append("| " + " | ".join([*cells, f"{p:.3f}", f"{statistics.mean(columns['load']):.1f}"]) + " |")
    return rows


def spread(values: list[float], digits: int) -> str:
    """Return the mean ± the standard deviation, if there are two values."""
    words = f"{statistics.mean(values):.{digits}f}"
    return words if len(values) < 2 else f"{words} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
