"""``winnow start``: its arguments, and the question before each step."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, EXIT_INTERRUPTED, PROBLEMS, ConfigError


def add_start(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    start = commands.add_parser(
        "start",
        help="from a folder of images and labels to a trained model",
        description="Describe and check a data set, try a training, search a dozen small ones, train the best in full. Each step "
        "is printed as the command that does it. The same command goes on where it was stopped. Exit code: 0 trained, 1 problems "
        "or not all steps taken, 2 bad usage, 75 stopped.",
    )
    start.add_argument(
        "data", type=Path, metavar="FOLDER", help="COCO JSON, Pascal VOC, YOLO, Roboflow's export, BDD100K"
    )
    start.add_argument(
        "overrides", nargs="*", help="of every run, as for train.py: data.val_part=0.15 training.max_epochs=30"
    )
    start.add_argument("--yes", action="store_true", help="take all steps without asking")
    start.add_argument(
        "--output", type=Path, metavar="DIR", help="for all that is made; default: start/NAME of the data"
    )
    start.add_argument(
        "--weights", type=Path, metavar="FILE", help="MobileNetV2's weights of ImageNet, as torchvision has them"
    )
    start.add_argument("--with-problems", action="store_true", help="go on where the check of the data finds problems")
    start.set_defaults(run=_start)


def _start(options: argparse.Namespace) -> int:
    if not options.yes and not sys.stdin.isatty():
        raise ConfigError(
            "winnow start asks before each step, and there is no terminal to ask at; --yes takes all steps"
        )
    if options.weights is not None and not options.weights.is_file():
        raise ConfigError(f"--weights {options.weights}: there is no such file")

    from winnow.commands.describe import print_splits
    from winnow.start.guide import Asked, guide

    folder = options.output or Path("start") / (options.data.resolve().stem or "data")
    asked = Asked(options.data, folder, tuple(options.overrides), options.weights, options.with_problems)
    try:
        is_whole = guide(asked, _say, print_splits, _agrees if not options.yes else lambda step: True)
    except KeyboardInterrupt:
        _say("\nstopped; the same command goes on from here")
        return EXIT_INTERRUPTED
    if not is_whole:
        _say("stopped; the same command goes on from here")
    return CLEAN if is_whole else PROBLEMS


def _say(line: str) -> None:
    from winnow.output import visible

    print(visible(line), flush=True)


def _agrees(step: str) -> bool:
    try:
        return input(f"      {step}: go on? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False
