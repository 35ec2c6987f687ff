"""``winnow compare``: its arguments, and which of the three views it gives."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, ConfigError


def add_compare(commands: Any) -> None:
    """Add the subcommand; import nothing heavy, since ``winnow --help`` answers at once."""
    compare = commands.add_parser(
        "compare",
        help="what sets checkpoints or runs apart: config, metrics, weights",
        description="Compare checkpoints, winnow's or another program's, and run folders, of which best.pth is taken (see "
        "--which). The first is what the others are compared with.",
    )
    compare.add_argument("first", help="a checkpoint or a run folder, as outputs/… or multirun/NAME/3")
    compare.add_argument("others", nargs="+", metavar="other")
    compare.add_argument("--format", choices=("table", "json", "html"), default="table")
    compare.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint to take of a run folder")
    compare.add_argument("--output", type=Path, help="write json or html there instead of to the terminal")
    compare.add_argument(
        "--frozen-source",
        metavar="PATH",
        help="the file, or its folder, that checkpoints take frozen weights from, if it has moved",
    )
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from winnow.compare.comparison import compare, to_json
    from winnow.compare.page import page
    from winnow.compare.subject import read_subject
    from winnow.compare.table import tables
    from winnow.console import CONSOLE

    if options.format == "table" and options.output is not None:
        raise ConfigError("--output needs --format json or html")
    if options.output is not None and not options.output.parent.is_dir():
        raise ConfigError(f"--output {options.output}: there is no folder {options.output.parent}")
    paths = (options.first, *options.others)
    comparison = compare([read_subject(path, options.which, options.frozen_source) for path in paths])
    if options.format == "table":
        for item in tables(comparison):
            CONSOLE.print(item)
        return CLEAN
    text = json.dumps(to_json(comparison), indent=1) + "\n" if options.format == "json" else page(comparison)
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")
    return CLEAN
