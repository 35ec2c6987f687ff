"""Record real learning curves: `python benchmarks/curves/record.py [--sets digits bccd pairs] [--most N]`, or `make curves`.

Per set 48 configurations drawn from a space of learning rates and batch sizes, and 20 repeats of one configuration that differ in
their seed alone, 12 epochs each. Every run is a `python train.py` of its own, with one thread and at the lowest priority. What a
run gave is one line of `benchmarks/curves/bank/SET.jsonl`; the detections of the repeats lie in `bank/SET/repeat_N.npz`. Started
again, it goes on with the first run that is missing. `bccd` reads `../shared/data/bccd` and is left out where that is not there.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
BANK = Path(__file__).parent / "bank"
BCCD = ROOT.parent / "shared" / "data" / "bccd"
SCRATCH = ROOT / ".curves"
NUM_CONFIGS, NUM_REPEATS, EPOCHS = 48, 20, 12
BATCH_SIZES = (4, 8, 16)

logger = logging.getLogger("record")


@dataclass(frozen=True)
class CurveSet:
    """Where curves come from: what every run of the set is told, the range of learning rates, and the repeated configuration."""

    overrides: tuple[str, ...]
    lr_range: tuple[float, float]
    repeated_lr: float
    repeated_batch: int = 8


SETS = {
    "digits": CurveSet(("model=fcos_tiny", "data=digits", "training.subset_size=500"), (1e-4, 3e-2), 3e-3),
    "bccd": CurveSet(("model=fcos_tiny", "data=coco", f"data.root={BCCD}", "data.image_size=160"), (1e-4, 3e-2), 3e-3),
    "pairs": CurveSet(
        (
            "model=pair_faster_rcnn_tiny", "model.fusion=mid", "data=pairs_synthetic", "training.subset_size=100",
            "training.max_iter=null",
        ),
        (1e-4, 2e-2),
        2e-3,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """One run of the bank: ``kind`` is config or repeat, ``number`` counts from 0 within it."""

    set_name: str
    kind: str
    number: int
    lr: float
    batch_size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.number}"


def planned(set_name: str) -> list[Planned]:
    """Return the runs of a set, the same in every call. Repeats and configurations alternate, so that a bank that is not finished
    holds some of both."""
    curves = SETS[set_name]
    rng = np.random.default_rng([15, list(SETS).index(set_name)])
    low, high = np.log(curves.lr_range)
    configs = [
        Planned(
            set_name,
            "config",
            number,
            float(f"{np.exp(rng.uniform(low, high)):.4g}"),
            int(rng.choice(BATCH_SIZES)),
            number,
        )
        for number in range(NUM_CONFIGS)
    ]
    repeats = [
        Planned(set_name, "repeat", number, curves.repeated_lr, curves.repeated_batch, 1000 + number)
        for number in range(NUM_REPEATS)
    ]
    mixed: list[Planned] = []
    for number, config in enumerate(configs):
        mixed += [config, *repeats[number : number + 1]]
    return mixed


def read_bank(set_name: str, bank: Path = BANK) -> list[dict[str, Any]]:
    """Return what was recorded of a set so far, in the order of its plan."""
    path = bank / f"{set_name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def record(run: Planned, bank: Path) -> None:
    """Train once, and add its line to the bank. Raises RuntimeError, with the end of its output, where training failed."""
    folder = SCRATCH / run.set_name / run.name
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable, "train.py", *SETS[run.set_name].overrides, f"training.optimizer.lr={run.lr}",
        f"training.batch_size={run.batch_size}", f"training.seed={run.seed}", f"training.max_epochs={EPOCHS}",
        "training.num_workers=0", "training.keep_last_n=0", "tracking=off", f"hydra.run.dir={folder}",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").exists() else {}
    if result.get("status") not in ("completed", "diverged"):
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    line = {
        **asdict(run),
        "status": result["status"],
        "metric": "val/map",
        "values": [float(row.get("val/map") or 0.0) for row in rows],
        "losses": [float(row.get("train/loss") or "nan") for row in rows],
        "seconds": [round(float(row["cost/seconds"]), 2) for row in rows],
    }
    bank.mkdir(parents=True, exist_ok=True)
    if run.kind == "repeat" and (folder / "val_detections.npz").exists():
        (bank / run.set_name).mkdir(exist_ok=True)
        shutil.copyfile(folder / "val_detections.npz", bank / run.set_name / f"{run.name}.npz")
    with (bank / f"{run.set_name}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--most", type=int, help="stop after so many runs")
    parser.add_argument("--bank", type=Path, default=BANK)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    os.nice(19)
    plans = {name: planned(name) for name in options.sets if name != "bccd" or BCCD.exists()}
    known = {name: {(run["kind"], run["number"]) for run in read_bank(name, options.bank)} for name in plans}
    rounds = zip(*plans.values(), strict=True)
    missing = [run for some in rounds for run in some if (run.kind, run.number) not in known[run.set_name]]
    logger.info("%d runs are recorded, %d are missing", sum(map(len, known.values())), len(missing))
    for run in missing[: options.most]:
        record(run, options.bank)
        logger.info("%s %s: lr %g, batch %d, seed %d", run.set_name, run.name, run.lr, run.batch_size, run.seed)


if __name__ == "__main__":
    main()
