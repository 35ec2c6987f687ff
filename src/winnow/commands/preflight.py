"""``winnow preflight``: its arguments, and where its report goes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, PROBLEMS, ConfigError
from winnow.masking import masked_output


def add_preflight(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    preflight = commands.add_parser(
        "preflight",
        help="try a run before a night is spent on it",
        description="Compose, build and step a run a few times; say what is wrong with it, what it will take, and what it "
        "learns from. Trains nothing that is kept. Exit code: 0 fine, 1 errors found, 2 bad usage.",
    )
    preflight.add_argument("overrides", nargs="*", help="the same as for train.py")
    preflight.add_argument(
        "--config-path",
        type=Path,
        metavar="FOLDER",
        help="where config.yaml lies; default: conf, or what winnow brings along",
    )
    preflight.add_argument(
        "--config-dir",
        type=Path,
        metavar="FOLDER",
        help="a folder of your own with more config groups, as for train.py",
    )
    preflight.add_argument(
        "--out", type=Path, default=Path("preflight"), metavar="FOLDER", help="for pictures; default: preflight"
    )
    preflight.add_argument(
        "--json", metavar="PATH", help="write the report there as JSON; - is stdout, and the text goes to stderr"
    )
    preflight.add_argument("--format", choices=("table", "json"), default="table", help="json: the same as --json -")
    preflight.add_argument(
        "--seconds", type=float, default=15.0, help="to spend on timed steps, at all image sizes together; default: 15"
    )
    preflight.add_argument(
        "--shapes-only",
        action="store_true",
        help="run and load nothing: tell from shapes alone what a step holds in memory, by batch size",
    )
    preflight.set_defaults(run=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    from winnow.output import visible
    from winnow.preflight.preflight import preflight

    if options.format == "json":
        if options.json not in (None, "-"):
            raise ConfigError(f"--format json prints the report, and --json {options.json} writes it; give one of them")
        options.json = "-"
    if options.json not in (None, "-") and not Path(options.json).parent.is_dir():
        raise ConfigError(f"--json {options.json}: there is no folder {Path(options.json).parent}")
    report = preflight(
        options.config_path, options.overrides, options.out, options.seconds, options.config_dir, options.shapes_only
    )
    for line in report.lines():
        print(visible(line), file=sys.stderr if options.json == "-" else sys.stdout)
    if options.json == "-":
        print(report.to_json())
    elif options.json is not None:
        Path(options.json).write_text(masked_output(report.to_json()) + "\n")
    return CLEAN if report.is_fine else PROBLEMS
