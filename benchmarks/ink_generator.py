"""How many tiles one core draws and labels: python benchmarks/ink_generator.py [--quick].

Whole batches as the training gets them: strokes, ink, noise, all labels. Per level and for the shipped settings,
medians of rounds; and what a loader process delivers to a training process that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from winnow.data.plan import LoadingSettings
from winnow.data.splits import SplitData
from winnow.families.ink.strokes.data import ink_strokes

CONFIG = Path(__file__).parents[1] / "conf/data/ink_strokes.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the tiles, one round")
    parser.add_argument("--smoke", action="store_true", help="64 tiles, one round: its figures mean nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tiles, rounds = (64, 1) if options.smoke else (512, 1) if options.quick else (2048, 3)
    clean = {"noise": 0.0, "blur": 0.0, "texture": 0.0, "affine": 0.0}
    rows: list[tuple[str, dict[str, Any], int]] = [
        *((f"level {level}", {"curriculum": level, "easier": 0.0}, 0) for level in (1, 2, 5, 10)),
        ("level 10, no noise, blur, texture, affine", {"curriculum": 10, "easier": 0.0} | clean, 0),
        ("level 10, 128 px", {"curriculum": 10, "easier": 0.0, "image_size": 128}, 0),
        ("as shipped, last level", {}, 0),
        ("as shipped, last level, 1 loader process", {}, 1),
    ]
    print(f"{tiles} tiles in batches of 64, 1 thread, median of {rounds}")
    print("| | tiles/s per core | ms per tile |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        for name, changed, workers in rows:
            data = make(root, changed | {"num_train": tiles}, workers)
            list(data.train_batches(100, data.image_size))
            rate = statistics.median(measure(data, 101 + number, workers) for number in range(rounds))
            print(f"| {name} | {rate:.0f} | {1000 / rate:.2f} |", flush=True)


def make(root: str, changed: dict[str, Any], workers: int) -> SplitData:
    values = yaml.safe_load(CONFIG.read_text()) | {"root": root, "image_size": 64, "num_val": 0} | changed
    values.pop("_target_")
    loading = LoadingSettings(
        batch_size=64, num_workers=workers, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
    )
    return ink_strokes(loading=loading, **values)


def measure(data: SplitData, epoch: int, workers: int) -> float:
    """Return tiles per second of processor time, or of wall time where other processes draw."""
    clock = time.perf_counter if workers else time.process_time
    begin = clock()
    count = sum(batch.num_samples for batch in data.train_batches(epoch, data.image_size))
    return count / (clock() - begin)


if __name__ == "__main__":
    main()
