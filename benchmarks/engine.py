"""winnow's fit against bare PyTorch loops, the Hugging Face Trainer and Lightning: python benchmarks/engine.py [--quick].

Every contestant is a process of its own that trains the same model on the same batches (digits, 16 images, from memory). They
start one after the other, which gives the seconds to the first step, then take turns of a few steps in rotating order, so that
whatever else the machine does hits all alike. Printed are images/s as ratios to the plain loop within a round (median, least and
greatest), and each one's peak memory. The peers need: pip install -e '.[bench]'.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from winnow.config.resolvers import register_resolvers
from winnow.engine.precision import multiplies_bf16

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = ("fcos_tiny", "deformable_detr_tiny")
FLOAT32 = ("training.amp=off",)
COMPILE, BF16 = (*FLOAT32, "training.compile=true"), ("training.amp=bf16",)
ENTRIES = (
    ("plain loop", FLOAT32), ("same loop", FLOAT32), ("winnow", FLOAT32), ("HF Trainer", FLOAT32), ("Lightning", FLOAT32),
    ("winnow", COMPILE),
    ("plain loop", BF16), ("winnow", BF16), ("HF Trainer", BF16), ("Lightning", BF16),
)  # fmt: skip
QUICK = 5  # only the float32 entries
PACKAGES = {"HF Trainer": "accelerate", "Lightning": "lightning"}
SMOKE = ("training.batch_size=2", "data.num_train=16", "data.num_val=2", "data.size=64", "data.image_size=64")
BLOCK = 10


@dataclass
class Contestant:
    """A running process and what it told."""

    name: str
    process: subprocess.Popen[str]
    first_step: float = 0.0
    peak_mb: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}; see the messages above")
        message: dict[str, Any] = json.loads(line)
        self.peak_mb = message["mb"]
        return message

    def take_turn(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.hear()["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rounds", type=int, default=10, help=f"of {BLOCK} steps each")
    parser.add_argument("--quick", action="store_true", help="float32 only, 4 rounds")
    parser.add_argument("--smoke", action="store_true", help="1 model, tiny images, 1 round: its figures mean nothing")
    parser.add_argument("--show-messages", action="store_true", help="of the contestants, on stderr")
    options = parser.parse_args()
    rounds = 1 if options.smoke else 4 if options.quick else options.rounds
    entries = list(ENTRIES[:QUICK] if options.quick or options.smoke else ENTRIES)
    for name, package in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            print(f"{name} is left out: the package {package} is not installed")
            entries = [entry for entry in entries if entry[0] != name]
    units = "has" if multiplies_bf16() else "has no"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; this CPU {units} bf16 instructions")
    with tempfile.TemporaryDirectory() as temporary:
        for model in options.models[:1] if options.smoke else options.models:
            race(model, entries, rounds, Path(temporary), options.show_messages, SMOKE if options.smoke else ())


def race(
    model: str,
    entries: Sequence[tuple[str, tuple[str, ...]]],
    rounds: int,
    folder: Path,
    show_messages: bool,
    sizes: tuple[str, ...],
) -> None:
    with running() as contestants:
        # The first draws the data set.
        start("winnow", composed(model, folder, (*FLOAT32, *sizes)), folder, show_messages).process.kill()
        for name, overrides in entries:
            contestants.append(start(name, composed(model, folder, (*overrides, *sizes)), folder, show_messages))
            options = [override.removeprefix("training.") for override in overrides if override not in FLOAT32]
            contestants[-1].name = " ".join([name, *options])
        take_turns(contestants, rounds, warm_up=2)
    print_table(model, contestants)


@contextlib.contextmanager
def running() -> Iterator[list[Contestant]]:
    """Give a list for contestants; those that stand in it are ended with this context."""
    contestants: list[Contestant] = []
    try:
        yield contestants
    finally:
        for contestant in contestants:
            contestant.process.kill()
            contestant.process.wait()


def take_turns(contestants: list[Contestant], rounds: int, warm_up: int) -> None:
    """Let all take their turns in rotating order, and note the seconds of each but in the rounds to get warm."""
    for number in range(-warm_up, rounds):
        shift = number % len(contestants)
        for contestant in contestants[shift:] + contestants[:shift]:
            seconds = contestant.take_turn()
            if number >= 0:
                contestant.seconds.append(seconds)


def composed(model: str, folder: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    register_resolvers()
    with initialize_config_dir(str(REPOSITORY / "conf")):
        cfg = compose("config", [f"model={model}", f"data.root={folder}/digits", "training.num_workers=0", *overrides])
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return dict(plain)


def start(engine: str, config: dict[str, Any], folder: Path, show_messages: bool) -> Contestant:
    """Start it and wait for its first step."""
    contestant = launch(engine, config, folder, show_messages)
    contestant.first_step = float(contestant.hear()["first_step"])
    return contestant


def launch(engine: str, config: dict[str, Any], folder: Path, show_messages: bool) -> Contestant:
    """Start it; the first that is heard of it is its first step."""
    environment = os.environ | {
        "WINNOW_RACE_STARTED_AT": str(time.time()),
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
        ),
    }
    command = [sys.executable, "-m", "contestants", engine, json.dumps(config), str(BLOCK)]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=None if show_messages else subprocess.DEVNULL,
    )  # fmt: skip
    return Contestant(engine, process)


def print_table(model: str, contestants: list[Contestant]) -> None:
    base = contestants[0].seconds
    print(f"\n{model}: {len(base)} rounds of {BLOCK} steps of 16 images, images/s as ratios to the plain loop")
    print(f"{'':32} {'ratio':>7} {'least':>7} {'most':>7} {'ms/step':>8} {'peak MB':>8} {'first step':>11}")
    for contestant in contestants:
        ratios = [reference / own for reference, own in zip(base, contestant.seconds, strict=True)]
        milliseconds = 1000 * statistics.median(contestant.seconds) / BLOCK
        print(
            f"{contestant.name:32} {statistics.median(ratios):7.3f} {min(ratios):7.3f} {max(ratios):7.3f} {milliseconds:8.1f} "
            f"{contestant.peak_mb:8.0f} {contestant.first_step:9.1f} s",
            flush=True,
        )
    by_name = {contestant.name: contestant.seconds for contestant in contestants}
    overhead = [own / same for own, same in zip(by_name["winnow"], by_name["same loop"], strict=True)]
    print(
        f"winnow's step over the same loop's: {statistics.median(overhead):.3f} ({min(overhead):.3f}–{max(overhead):.3f})"
    )


if __name__ == "__main__":
    main()
