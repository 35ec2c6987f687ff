"""``winnow study`` and ``winnow promote``: their arguments, and the tables they print."""

from __future__ import annotations

import argparse
import json
import sys
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
    study.add_argument("--format", choices=("table", "json"), default="table")
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
    promote.add_argument(
        "--config-dir",
        type=Path,
        metavar="FOLDER",
        help="a folder of your own with more config groups, as for the search",
    )
    promote.add_argument("--format", choices=("table", "json"), default="table", help="of what is said at the end")
    promote.set_defaults(run=_promote)


def _study(options: argparse.Namespace) -> int:
    from winnow.console import CONSOLE
    from winnow.sweep.report import study_lines
    from winnow.sweep.stored_study import StoredStudy
    from winnow.sweep.study_json import study_json

    stored = StoredStudy.open(options.folder, options.storage)
    if options.format == "json":
        print(json.dumps(study_json(stored), indent=1))
        return CLEAN
    for item in study_lines(stored):
        CONSOLE.print(item)
    return CLEAN


def _promote(options: argparse.Namespace) -> int:
    from winnow.console import CONSOLE
    from winnow.sweep.promotion import promote, promotion_table
    from winnow.sweep.promotion_command import training_program
    from winnow.sweep.stored_study import StoredStudy
    from winnow.sweep.study_json import promotion_json

    if options.top < 1:
        raise ConfigError(f"--top {options.top} must be at least 1")
    source = StoredStudy.open(options.folder, options.storage)
    program = training_program(options.config_dir)
    printed = sys.stderr if options.format == "json" else None  # standard output is the program's that reads it
    promotion = promote(source, options.top, options.overrides, program, options.by, printed)
    if options.format == "json":
        print(json.dumps(promotion_json(promotion), indent=1))
    else:
        CONSOLE.print(promotion_table(promotion))
    return CLEAN if promotion.is_whole else PROBLEMS
