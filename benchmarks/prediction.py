"""How fast predictions on pictures are against the bare forward pass: python benchmarks/prediction.py [--folder JPEGS].

Prints pictures per second of ``TrainedModel.stream`` over JPEG files (reading, resizing, forward, boxes with names) and over
arrays, of a bare loop over batches that lie ready in memory, with and without predictions, and their ratios; and by how much the
memory grows from the first tenth of the files to the last. Interleaved rounds, medians of the ratios within each, because
machines drift.

On a machine that others use too, wall time says little: the stream has threads of its own, and gets a larger share than the
bare loop. So the CPU time of the thread that computes is stated beside it, and that of reading a picture, which other threads
do: the model waits for them only where reading takes longer than looking times their number.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

import winnow
from data import photographs  # beside this file
from winnow.data.image import read_upright
from winnow.trained.model import TrainedModel

TRAIN = Path(__file__).parents[1] / "train.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder of JPEG files; default: two photographs of 1280×720 px")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--models", nargs="+", default=["fcos_tiny", "deformable_detr_tiny"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="4 pictures of 64 px, 1 round: its figures mean nothing")
    options = parser.parse_args()
    if options.smoke:
        options.pictures, options.image_size, options.rounds, options.batch_sizes = 4, 64, 1, [2]
    torch.set_num_threads(1)  # the other core reads
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or photographs(Path(temporary))
        files = list(itertools.islice(itertools.cycle(sorted(folder.glob("*.jpg"))), options.pictures))
        print(f"{options.pictures} pictures from {folder}, at {options.image_size} px, 1 thread")
        for name in options.models:
            model = winnow.load(trained(name, options.image_size, Path(temporary)), "last", options.device)
            for batch_size in options.batch_sizes:
                compare(model, name, files, batch_size, options.rounds)


def trained(name: str, image_size: int, folder: Path) -> Path:
    """Return the folder of a run of one step: what matters is how long its model takes."""
    command = [
        sys.executable, str(TRAIN), f"model={name}", "tracking=off", "data.num_train=2", "data.num_val=2",
        f"data.size={image_size}", f"data.image_size={image_size}", "training.max_iter=1", "training.batch_size=2",
        "training.num_workers=0", f"hydra.run.dir={folder / name}",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return folder / name


def compare(model: TrainedModel, name: str, files: list[Path], batch_size: int, rounds: int) -> None:
    arrays = [read_upright(path) for path in files[:batch_size]]
    batch = model.evaluation.picture_batch(  # type: ignore[attr-defined]
        arrays, [str(number) for number in range(len(arrays))], model.config["data"], model.image_size
    ).to(model.precision.device, model.precision.memory_format)
    num_batches = -(-len(files) // batch_size)

    @torch.inference_mode()
    def bare(with_predictions: bool) -> int:
        for _ in range(num_batches):
            with model.precision.autocast():
                outputs = model.task.forward(batch)
            if with_predictions:
                model.task.predictions(outputs, batch)
        if model.precision.device.type == "cuda":
            torch.cuda.synchronize()
        return num_batches * len(arrays)

    def stream(pictures: list[Any]) -> int:
        return sum(1 for _ in model.stream(pictures, batch_size))

    ways: dict[str, Callable[[], int]] = {
        "forward alone": lambda: bare(with_predictions=False),
        "forward and predictions": lambda: bare(with_predictions=True),
        "stream of files": lambda: stream(list(files)),
        "stream of arrays": lambda: stream(list(itertools.islice(itertools.cycle(arrays), len(files)))),
    }
    walls: dict[str, list[float]] = {way: [] for way in ways}
    own: dict[str, list[float]] = {way: [] for way in ways}
    reading = []
    for number in range(rounds + 1):
        for way, run in ways.items():
            began, own_began, all_began = time.perf_counter(), time.thread_time(), time.process_time()
            pictures = run()
            if number:  # the first round fills caches
                walls[way].append((time.perf_counter() - began) / pictures)
                own[way].append((time.thread_time() - own_began) / pictures)
                if way == "stream of files":
                    reading.append((time.process_time() - all_began) / pictures - own[way][-1])
    print(
        f"{name}, batches of {batch_size}, {model.precision.device}, memory +{growth(model, files, batch_size):.1f} MB; "
        f"reading takes {1e3 * statistics.median(reading):.1f} CPU ms per picture in other threads"
    )
    print(f"  {'':24s} {'pictures/s':>10s} {'of the loop':>12s} {'CPU ms':>8s} {'of the loop':>12s}")
    for way in ways:
        parts = [
            statistics.median(
                bare / mine for bare, mine in zip(times["forward and predictions"], times[way], strict=True)
            )
            for times in (walls, own)
        ]
        wall, cpu = statistics.median(walls[way]), statistics.median(own[way])
        print(f"  {way:24s} {1 / wall:10.1f} {parts[0]:12.2f} {1e3 * cpu:8.1f} {parts[1]:12.2f}")


def growth(model: TrainedModel, files: list[Path], batch_size: int) -> float:
    """Return by how many MB this process's memory is larger after all files than after a tenth of them."""
    process, after = psutil.Process(os.getpid()), 0
    for number, _ in enumerate(model.stream(files * 3, batch_size)):
        if number == 3 * len(files) // 10:
            after = process.memory_info().rss
    return (process.memory_info().rss - after) / 1e6


if __name__ == "__main__":
    main()
