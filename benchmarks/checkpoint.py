"""How long a save stops training: `python benchmarks/checkpoint.py [--rounds N] [--steps N] [--folder FOLDER]`, or `--smoke`.

A ResNet-50 with AdamW and EMA (400 MB of state) takes real steps. By turns, in one process: no save, `torch.save`, `torch.save`
with fsync and rename, and winnow's save, each followed by the same number of steps. The pause is what the training thread waits;
the block is the save with the steps after it, until the file is on disk, so that it holds what the writer takes from the steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.folder import CheckpointFolder
from winnow.engine.ema import Ema
from winnow.engine.precision import Precision
from winnow.engine.schedule import LrSchedule
from winnow.engine.settings import Objective, SchedulerSettings
from winnow.engine.snapshot import Snapshot
from winnow.engine.state import TrainState
from winnow.engine.step import TrainStep


@dataclass(frozen=True)
class Noise:
    images: Tensor
    labels: Tensor
    image_ids: tuple[int, ...] = ()

    @property
    def num_samples(self) -> int:
        return len(self.images)

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.preserve_format) -> Noise:
        del device, memory_format
        return self


class Classification:
    """The parts of winnow.protocols.Task that a training step needs."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def forward(self, batch: Noise) -> Tensor:
        return self.model(batch.images)

    def loss_count(self, batch: Noise) -> dict[str, float]:
        return {"images": float(len(batch.labels))}

    def losses(self, outputs: Tensor, batch: Noise, count: Mapping[str, float]) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(outputs, batch.labels, reduction="sum") / count["images"]}


class Bench:
    def __init__(self, folder: Path, num_steps: int, model: nn.Module) -> None:
        self.folder, self.num_steps, self.state = folder, num_steps, TrainState(Objective(metric="loss", mode="min"))
        task: Any = Classification(model)
        groups = [{"params": list(task.model.parameters()), "name": "all", "lr": 1e-4, "base_lr": 1e-4}]
        self.step = TrainStep(
            task, torch.optim.AdamW(groups), LrSchedule(SchedulerSettings.model_validate({"name": "constant"}), 10**6, 10**6),
            Precision.choose("off", torch.device("cpu")), None, Ema(task.model, 0.999), max_nonfinite=3,
        )  # fmt: skip
        self.snapshot = Snapshot(self.step, {}, ["a"], {"data_fingerprint": "noise"})
        self.checkpoints = CheckpointFolder(folder / "ours", save_interval=1, keep_last_n=1)
        self.batch: Any = Noise(torch.randn(8, 3, 64, 64), torch.randint(0, 1000, (8,)))
        self.ways: dict[str, Callable[[], None]] = {
            "no save": lambda: None,
            "torch.save": self.save_plainly,
            "torch.save, fsync": self.save_durably,
            "winnow": self.save_with_winnow,
        }

    def save_plainly(self) -> None:
        torch.save(self.snapshot.take(self.state), self.folder / "plain.pth")

    def save_durably(self) -> None:
        temporary = self.folder / "durable.tmp"
        with temporary.open("wb") as file:
            torch.save(self.snapshot.take(self.state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / "durable.pth")

    def save_with_winnow(self) -> None:
        self.state.epoch += 1
        self.checkpoints.save_epoch(self.snapshot.take(self.state), is_best=True, recorded=lambda: True)

    def take_steps(self, number: int) -> None:
        for _ in range(number):
            self.step([self.batch], self.state.step)
            self.state.step += 1

    def block(self, way: str) -> tuple[float, float]:
        """Return seconds of the pause, and of the pause with the steps after it."""
        os.sync()  # what the way before left to the disk is not this one's
        began = time.perf_counter()
        self.ways[way]()
        pause = time.perf_counter() - began
        self.take_steps(self.num_steps)
        self.checkpoints.wait()
        return pause, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="between saves")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one by default")
    parser.add_argument("--smoke", action="store_true", help="1 round of 1 step, ResNet-18: its figures mean nothing")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds = arguments.steps = 1
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        bench = Bench(Path(temporary), arguments.steps, resnet18() if arguments.smoke else resnet50())
        with bench.checkpoints:
            bench.take_steps(1)
            bench.checkpoints.make_room(bench.snapshot.take(bench.state))
            bench.take_steps(4)
            first = bench.block("winnow")[0]
            measured: dict[str, list[tuple[float, float]]] = {way: [] for way in bench.ways}
            for round_number in range(arguments.rounds):
                for turn in range(len(bench.ways)):
                    way = list(bench.ways)[(turn + round_number) % len(bench.ways)]
                    measured[way].append(bench.block(way))
        size = bench.checkpoints.last.stat().st_size
        read_checkpoint(bench.checkpoints.last)
    show(measured, first, size, arguments.steps)


def show(measured: dict[str, list[tuple[float, float]]], first: float, size: int, num_steps: int) -> None:
    print(f"{size / 1e6:.0f} MB of state, {num_steps} steps after each save, {len(measured['winnow'])} saves each")
    print(
        f"{'':<18} {'pause':>9} {'slowest':>9} {'× torch.save':>13} {'× with fsync':>13} {'block':>9} {'− no save':>10}"
    )
    pauses = {way: statistics.median(pause for pause, _ in times) for way, times in measured.items()}
    blocks = {way: statistics.median(block for _, block in times) for way, times in measured.items()}
    for way, times in measured.items():
        ratios = [pauses[way] / pauses[plain] for plain in ("torch.save", "torch.save, fsync")]
        slowest = max(pause for pause, _ in times)
        print(
            f"{way:<18} {1e3 * pauses[way]:6.0f} ms {1e3 * slowest:6.0f} ms {ratios[0]:13.3f} {ratios[1]:13.3f}"
            f" {blocks[way]:7.2f} s {blocks[way] - blocks['no save']:+8.2f} s"
        )
    print(f"winnow's first save of the process: {1e3 * first:.0f} ms")


if __name__ == "__main__":
    main()
