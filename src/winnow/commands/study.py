"""``winnow study`` and ``winnow promote``: their arguments, and the tables they print."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, PROBLEMS, ConfigError


def add_study(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    study = commands.add_parser(
        "study",
        help="show a sweep's trials without touching anything",
        description="Show a sweep: its trials, the best, what runs.",
    )
    study.add_argument("folder", type=Path, help="multirun/NAME")
    study.add_argument(
        "--storage", help="address with its password, where the study's own lacks it and the environment too"
    )
    study.set_defaults(run=_study)


def add_promote(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    promote = commands.add_parser(
        "promote",
        help="train a sweep's best configurations in full",
        description="Train the best configurations of a sweep in full (budget=full), then say whether the search ranked truly. "
        "The same command again goes on where it was stopped.",
    )
    promote.add_argument("folder", type=Path, help="multirun/NAME")
    promote.add_argument("overrides", nargs="*", help="as for train.py, for all of them: training.max_epochs=50")
    promote.add_argument("--top", type=int, default=3, metavar="K")
    promote.add_argument(
        "--by",
        metavar="OBJECTIVE",
        help="of several objectives the one that says which are best; the first if not given",
    )
    promote.add_argument(
        "--storage", help="address with its password, where the study's own lacks it and the environment too"
    )
    promote.set_defaults(run=_promote)


def _study(options: argparse.Namespace) -> int:
    from winnow.console import CONSOLE
    from winnow.sweep.report import study_lines
    from winnow.sweep.stored_study import StoredStudy

    for item in study_lines(StoredStudy.open(options.folder, options.storage)):
        CONSOLE.print(item)
    return CLEAN


def _promote(options: argparse.Namespace) -> int:
    from winnow.console import CONSOLE
    from winnow.sweep.promotion import promote, promotion_table
    from winnow.sweep.stored_study import StoredStudy

    if options.top < 1:
        raise ConfigError(f"--top {options.top} must be at least 1")
    source = StoredStudy.open(options.folder, options.storage)
    promotion = promote(source, options.top, options.overrides, by=options.by)
    CONSOLE.print(promotion_table(promotion))
    return CLEAN if promotion.is_whole else PROBLEMS
