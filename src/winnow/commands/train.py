"""``winnow train``: train.py of whichever project the working folder holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


def add_train(commands: Any) -> None:
    """Add the subcommand, for ``winnow --help``: its arguments are Hydra's to read."""
    commands.add_parser(
        "train",
        help="train a run or a sweep, as python train.py does",
        add_help=False,
    )


def train_with(arguments: Sequence[str]) -> int:
    """Train what ``arguments``, a command line of Hydra's, compose to; return 0. Ends the process by itself otherwise."""
    from winnow.run.train import train

    sys.argv[1:] = arguments
    train()
    return 0
