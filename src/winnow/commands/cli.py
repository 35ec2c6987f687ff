"""``winnow …``, which is ``python -m winnow`` too: each subcommand is read and run by its own module."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

from winnow.commands.benchmark import add_benchmark
from winnow.commands.compare import add_compare
from winnow.commands.data import add_convert, add_data
from winnow.commands.export import add_export
from winnow.commands.new import add_new
from winnow.commands.predict import add_evaluate, add_predict
from winnow.commands.preflight import add_preflight
from winnow.commands.proof import add_reproduce, add_verify
from winnow.commands.report import add_report
from winnow.commands.start import add_start
from winnow.commands.study import add_promote, add_study
from winnow.commands.sync import add_sync
from winnow.commands.train import add_train, train_with
from winnow.commands.ui import add_ui
from winnow.errors import BAD_USAGE, EXIT_UNREAD, PROBLEMS, ConfigError, WinnowError, refused_path
from winnow.masking import mask_output
from winnow.output import drop_unwritten_output, is_unread, visible

SUBCOMMANDS = (
    add_train, add_new, add_start, add_data, add_convert, add_preflight, add_predict, add_evaluate, add_export, add_benchmark,
    add_compare, add_report, add_study, add_promote, add_sync, add_verify, add_reproduce, add_ui,
)  # fmt: skip

DISTRIBUTION = "winnow-train"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; return 0, 1 for problems found or data that cannot be used, 2 for bad usage, 141 where whoever read the
    output has gone."""
    try:
        return _run(arguments)
    except BrokenPipeError:
        if not is_unread():
            raise
        return EXIT_UNREAD
    finally:
        drop_unwritten_output()


def _run(arguments: Sequence[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"]:
        return train_with(arguments[1:])
    options = _parsed(arguments)
    mask_output()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return int(options.run(options))
    except WinnowError as error:
        print(f"winnow: {visible(error)}", file=sys.stderr)
        return BAD_USAGE if isinstance(error, ConfigError) else PROBLEMS
    except OSError as error:
        words = refused_path(error)
        if words is None:
            raise
        print(f"winnow: {visible(words)}", file=sys.stderr)
        return BAD_USAGE


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options, left = parser.parse_known_args(arguments)
    # argparse takes overrides that stand behind an option for something unknown.
    if left and (not hasattr(options, "overrides") or any(text.startswith("-") for text in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.overrides += left
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="winnow", description="Train detectors, and what belongs to it.")
    parser.add_argument("--version", action="version", version=f"winnow {version(DISTRIBUTION)}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in SUBCOMMANDS:
        add(commands)
    return parser
