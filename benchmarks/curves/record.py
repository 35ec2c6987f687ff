"""Record real learning curves: `python benchmarks/curves/record.py [--sets digits bccd pairs] [--most N]`, or `make curves`.

Per set 48 configurations drawn from a space of learning rates and batch sizes, and 20 repeats of one configuration that differ in
their seed alone, 12 epochs each. Every run is a `python train.py` of its own, with one thread and at the lowest priority;
`--slots` trains several at once, on `--device`, and `--seconds` ends the recording after the runs that are begun by then. What a
run gave is one line of `benchmarks/curves/bank/SET.jsonl`; the detections of the repeats lie in `bank/SET/repeat_N.npz`. Started
again, it goes on with the first run that is missing, or with `--backwards` the last one: two machines can share the work, and
`--merge BANK` adds what another one recorded. `bccd` reads `--bccd`, `../shared/data/bccd` by default, and is left out where that
is not there.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
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
    "bccd": CurveSet(("model=fcos_tiny", "data=coco", "data.image_size=160"), (1e-4, 3e-2), 3e-3),
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
class Places:
    """Where runs are recorded, where ``bccd`` lies, and what trains."""

    bank: Path
    bccd: Path
    device: str


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


def record(run: Planned, places: Places) -> dict[str, Any]:
    """Train once; return the line for the bank. The detections of a repeat are copied there.

    Raises RuntimeError, with the end of its output, where training failed.
    """
    folder = SCRATCH / run.set_name / run.name
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable, "train.py", *SETS[run.set_name].overrides, f"training.optimizer.lr={run.lr}",
        f"training.batch_size={run.batch_size}", f"training.seed={run.seed}", f"training.max_epochs={EPOCHS}",
        f"training.device={places.device}", "training.num_workers=0", "training.keep_last_n=0", "tracking=off",
        f"hydra.run.dir={folder}", *([f"data.root={places.bccd}"] if run.set_name == "bccd" else []),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").exists() else {}
    if result.get("status") not in ("completed", "diverged"):
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if run.kind == "repeat" and (folder / "val_detections.npz").exists():
        (places.bank / run.set_name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "val_detections.npz", places.bank / run.set_name / f"{run.name}.npz")
    shutil.rmtree(folder)
    return {
        **asdict(run),
        "status": result["status"],
        "device": places.device,
        "metric": "val/map",
        "values": [float(row.get("val/map") or 0.0) for row in rows],
        "losses": [float(row.get("train/loss") or "nan") for row in rows],
        "seconds": [round(float(row["cost/seconds"]), 2) for row in rows],
    }


def add(lines: Iterable[dict[str, Any]], bank: Path) -> int:
    """Append ``lines`` to the files of their sets, but those that are there already; the number of the added ones."""
    bank.mkdir(parents=True, exist_ok=True)
    count = 0
    for line in lines:
        known = {(one["kind"], one["number"]) for one in read_bank(line["set_name"], bank)}
        if (line["kind"], line["number"]) not in known:
            with (bank / f"{line['set_name']}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            count += 1
    return count


def merge(other: Path, bank: Path) -> int:
    """Add the runs of the bank ``other``, with their detections; the number of those that were missing here."""
    for path in sorted(other.glob("*/*.npz")):
        if not (bank / path.relative_to(other)).exists():
            (bank / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, bank / path.relative_to(other))
    return sum(add(read_bank(name, other), bank) for name in SETS)


def missing(sets: Sequence[str], bank: Path) -> list[Planned]:
    """Return the runs that are not recorded, the sets in turns."""
    known = {name: {(run["kind"], run["number"]) for run in read_bank(name, bank)} for name in sets}
    rounds = zip(*map(planned, sets), strict=True)
    return [run for some in rounds for run in some if (run.kind, run.number) not in known[run.set_name]]


def record_all(runs: Sequence[Planned], places: Places, slots: int, seconds: float) -> None:
    """Record ``runs``, so many at once; none is begun after ``seconds``. One that fails is logged, and left for the next time."""
    deadline = time.monotonic() + seconds
    waiting = iter(runs)
    with ThreadPoolExecutor(slots) as pool:
        running: dict[Future[dict[str, Any]], Planned] = {}
        while True:
            while len(running) < slots and time.monotonic() < deadline and (run := next(waiting, None)) is not None:
                running[pool.submit(record, run, places)] = run
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                try:
                    add([future.result()], places.bank)
                except (RuntimeError, OSError, ValueError) as error:
                    logger.error("%s %s: %s", run.set_name, run.name, error)
                    continue
                logger.info("%s %s: lr %g, batch %d, seed %d", run.set_name, run.name, run.lr, run.batch_size, run.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--most", type=int, help="stop after so many runs")
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--bccd", type=Path, default=BCCD, help="the folder of the data set")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slots", type=int, default=1, help="runs at once")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after that")
    parser.add_argument("--backwards", action="store_true", help="begin with the last run of the plan")
    parser.add_argument("--merge", type=Path, metavar="BANK", help="only add the runs of this bank")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    if options.merge is not None:
        logger.info("%d runs were added", merge(options.merge, options.bank))
        return
    os.nice(19)
    bccd = options.bccd.resolve()
    runs = missing([name for name in options.sets if name != "bccd" or bccd.exists()], options.bank)
    logger.info("%d runs are missing", len(runs))
    places = Places(options.bank, bccd, options.device)
    record_all((runs[::-1] if options.backwards else runs)[: options.most], places, options.slots, options.seconds)


if __name__ == "__main__":
    main()
