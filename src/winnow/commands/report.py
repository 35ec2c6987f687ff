"""``winnow report``: its arguments, and which page it writes."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, ConfigError, WinnowError

logger = logging.getLogger(__name__)


def add_report(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    report = commands.add_parser(
        "report",
        help="write a page about a run, a sweep or a comparison",
        description="Write one HTML file that needs nothing else: about a run folder (curves, classes, errors, images), about a "
        "sweep (multirun/NAME), or about several runs beside each other.",
    )
    report.add_argument(
        "subjects", nargs="+", type=Path, metavar="RUN", help="a run folder, multirun/NAME, or several runs"
    )
    report.add_argument(
        "--output", type=Path, help="default: report.html in the folder; comparison.html here for several runs"
    )
    report.add_argument("--images", type=int, metavar="N", help="how many of the worst images to show; default: 8")
    report.add_argument("--no-data", action="store_true", help="don't read the run's data; then no image is shown")
    report.add_argument(
        "--trusted-targets",
        default="",
        metavar="A,B",
        help="packages of your own that the run's data and evaluation need",
    )
    report.add_argument(
        "--storage",
        help="of a sweep: address with its password, where the study's own lacks it and the environment too",
    )
    report.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="of what is printed: the page's path, or an object with it",
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    if options.images is not None and options.images < 0:
        raise ConfigError(f"--images {options.images} must be at least 0")
    if options.output is not None and not options.output.parent.is_dir():
        raise ConfigError(f"--output {options.output}: there is no folder {options.output.parent}")
    if len(options.subjects) > 1:
        kind, path = "comparison", _comparison(options)
    elif (options.subjects[0] / "sweep.yaml").exists():
        kind, path = "study", _study(options)
    else:
        kind, path = "run", _run(options)
    if options.format == "json":
        content = {
            "schema": 1,
            "kind": kind,
            "subjects": [str(folder) for folder in options.subjects],
            "page": str(path),
        }
        print(json.dumps(content, indent=1))
    else:
        print(path)
    return CLEAN


def _run(options: argparse.Namespace) -> Path:
    from winnow.config.compose import compose_command_line
    from winnow.config.instantiate import instantiate
    from winnow.config.recorded import followed_config
    from winnow.report.run import RunFiles, write_run_report
    from winnow.trained.evaluation import loading_of

    (folder,) = options.subjects
    files = RunFiles.read(folder)
    named = [name for name in options.trusted_targets.split(",") if name]
    trusted = [*compose_command_line(None, []).config["trusted_targets"], *named]
    config = followed_config({"config": dict(files.config), "metadata": {}}, trusted, str(folder / "config.yaml"))
    data = None
    if not options.no_data:
        try:
            data = instantiate(config, "data", loading=loading_of(config, None))
        except (WinnowError, OSError) as error:
            logger.warning("no image is shown, the run's data can't be had: %s", error)
    return write_run_report(folder, instantiate(config, "evaluation"), data, options.images, path=options.output)


def _study(options: argparse.Namespace) -> Path:
    from winnow.report.study import write_study_report
    from winnow.sweep.stored_study import StoredStudy

    (folder,) = options.subjects
    return write_study_report(StoredStudy.open(folder, options.storage), options.output or folder / "report.html")


def _comparison(options: argparse.Namespace) -> Path:
    from winnow.compare.comparison import compare
    from winnow.compare.page import page
    from winnow.compare.subject import read_subject
    from winnow.run_folder import write_whole

    comparison = compare([read_subject(str(path), "best", None) for path in options.subjects])
    path: Path = options.output or Path("comparison.html")
    write_whole(path, page(comparison))
    return path
