"""Whether MACL aligns pairs, with controls: python benchmarks/pair_alignment.py FOLDER [--arms ARM …] [--seeds N].

Every arm is a run of `train.py model=pair_faster_rcnn_tiny data=pairs_synthetic`, on one thread, one after the other,
seed by seed: with MACL, without, with MACL on shuffled pairs, and not trained at all. Each is measured on the validation
pairs, of which none is shuffled; what was not trained with a projection is measured with an untrained one. Runs are kept
in FOLDER: the same command again skips those that completed, and results are written after each. `--table` only prints
them. docs/pairs.md says what is measured."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pairs import REPOSITORY, restored, shuffled_pairs

from winnow.families.pairs.alignment import draw_alignment, measure_alignment
from winnow.families.pairs.models.macl import AlignmentHead
from winnow.families.pairs.models.network import PairNetwork
from winnow.families.pairs.models.tiny_pyramid import STRIDES

WEIGHT = 0.2
ARMS = {
    "macl": [f"model.macl.weight={WEIGHT}"],
    "without": ["model.macl.weight=0.0"],
    "shuffled": [f"model.macl.weight={WEIGHT}"],
    "untrained": [f"model.macl.weight={WEIGHT}", "training.max_iter=1", "training.optimizer.lr=1e-12"],
}
COLUMNS = (
    "same_box_r1", "stranger_r1", "place_only_r1", "other_objects_r1", "other_objects_rank", "retrieval_r1",
    "retrieval_rank", "in_pair_r1", "in_pair_guess", "loss_per_object", "loss_of_chance", "map_50",
)  # fmt: skip


def train(arm: str, seed: int, root: Path, more: Sequence[str]) -> None:
    """Train anew, whatever is there. Raises RuntimeError with the end of what it printed."""
    folder = root / f"{arm}_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    pairs = shuffled_pairs(root / "shuffled") if arm == "shuffled" else root / "pairs"
    command = [
        sys.executable, "train.py", "model=pair_faster_rcnn_tiny", "data=pairs_synthetic", f"data.root={pairs}",
        "training.num_workers=0", "training.eval_interval=1000", "tracking=off", f"training.seed={seed}", *ARMS[arm], *more,
        f"hydra.run.dir={folder}",
    ]  # fmt: skip
    log = root / f"{folder.name}.log"
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{log.read_text()[-2000:]}")


def measure(arm: str, seed: int, root: Path) -> dict[str, float]:
    """Return what was measured of a run's last weights, kept beside them with a picture."""
    folder = root / f"{arm}_{seed}"
    data, task = restored(folder)
    network = task.model
    assert isinstance(network, PairNetwork)
    head = network.alignment
    if head is None:
        torch.manual_seed(seed)
        channels = next(
            iter(task.forward(next(iter(data.val_batches(data.image_size)))).modalities["visible"].values())
        ).shape[1]
        head = AlignmentHead(channels, STRIDES, sampling_ratio=1)
    alignment, numbers = measure_alignment(task, head, data.val_batches(data.image_size))
    draw_alignment(*alignment.objects(), folder / "alignment.png", f"{arm}, seed {seed}")
    numbers["map_50"] = json.loads((folder / "result.json").read_text())["metrics"]["val/map_50"]
    (folder / "alignment.json").write_text(json.dumps(numbers, indent=2))
    return numbers


def _table(root: Path, arms: Sequence[str], seeds: int) -> Iterator[str]:
    """Return markdown: the mean over the seeds that completed, and the least and the most."""
    yield "| arm | seeds | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (2 + len(COLUMNS)) + "|"
    for arm in arms:
        paths = [root / f"{arm}_{seed}" / "alignment.json" for seed in range(seeds)]
        rows = [json.loads(path.read_text()) for path in paths if path.exists()]
        cells = [_spread([row[key] for row in rows]) for key in COLUMNS]
        yield f"| {arm} | {len(rows)} | " + " | ".join(cells) + " |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ({min(values):.3f}–{max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--more", nargs="*", default=[], help="overrides of every run; another folder for each set")
    parser.add_argument(
        "--remeasure", action="store_true", help="measure the runs that are there again; train those that are not"
    )
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    options = parser.parse_args()
    root: Path = options.folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    asked, written = json.dumps(options.more), root / "plan.json"
    if written.exists() and written.read_text() != asked:
        parser.error(f"{root} holds runs with {written.read_text()}, not {asked}; choose another folder")
    written.write_text(asked)
    for seed in range(options.seeds):
        for arm in options.arms:
            folder = root / f"{arm}_{seed}"
            if not options.table and (options.remeasure or not (folder / "alignment.json").exists()):
                if not (folder / "result.json").exists():
                    train(arm, seed, root, options.more)
                print(arm, seed, measure(arm, seed, root), flush=True)
    for line in _table(root, options.arms, options.seeds):
        print(line)


if __name__ == "__main__":
    main()
