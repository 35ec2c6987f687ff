"""``winnow sync``: its arguments, and what it says of each run that it sends."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, PROBLEMS, WinnowError


def add_sync(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    sync = commands.add_parser(
        "sync",
        help="send to MLflow what a run could not send while it ran",
        description="Send a run's outbox to MLflow, and those of its stages. Exit code: 0 all is sent, 1 something is left.",
    )
    sync.add_argument("run_folder", type=Path)
    sync.add_argument(
        "--patience", type=float, default=60.0, metavar="SECONDS", help="give up after so long without success"
    )
    sync.add_argument(
        "--uri",
        help="the server's address, where its secret is not recorded and the environment does not hold it either",
    )
    sync.add_argument("--experiment", metavar="NAME", help="the experiment, where it is recorded as ***")
    sync.set_defaults(run=_sync)


def _sync(options: argparse.Namespace) -> int:
    from winnow.output import visible
    from winnow.tracking.sync import sync, tracked_folders

    code = CLEAN
    for folder in tracked_folders(options.run_folder):
        try:
            report = sync(folder, options.patience, options.uri, options.experiment)
        except WinnowError as error:  # the others may still be sent
            print(f"winnow: {visible(error)}", file=sys.stderr)
            code = PROBLEMS
            continue
        print(
            f"run {report.run_id}: {report.sent} events sent now, {report.unsent} events and {report.waiting_files} files left"
        )
        if report.trouble:
            print(f"winnow: {visible(report.trouble)}", file=sys.stderr)
        if report.unsent or report.waiting_files:
            code = PROBLEMS
    return code
