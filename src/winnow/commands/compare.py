"""``winnow compare``: its arguments, and which of the three views it gives."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.errors import CLEAN, ConfigError

if TYPE_CHECKING:
    from winnow.compare.verdicts import Judged
    from winnow.results.measured import MeasuredRun


def add_compare(commands: Any) -> None:
    """Add the subcommand; import nothing heavy, since ``winnow --help`` answers at once."""
    compare = commands.add_parser(
        "compare",
        help="which run is better, or is it luck; what sets checkpoints or runs apart: config, metrics, weights",
        description="Compare checkpoints, winnow's or another program's, and run folders, of which best.pth is taken (see "
        "--which). The first is what the others are compared with. Of run folders it says whether each of the others is better, "
        "worse, or can't be told from the first.",
    )
    compare.add_argument(
        "paths", nargs="*", metavar="RUN", help="a checkpoint or a run folder, as outputs/… or multirun/NAME/3"
    )
    compare.add_argument(
        "--group",
        nargs="+",
        action="append",
        type=Path,
        metavar="RUN",
        help="runs of one configuration with different seeds, or folders that hold such; give it once for each side",
    )
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
    from winnow.compare.verdicts import verdict_json, words_of
    from winnow.compare.words import column
    from winnow.console import CONSOLE

    if options.format == "table" and options.output is not None:
        raise ConfigError("--output needs --format json or html")
    if options.output is not None and not options.output.parent.is_dir():
        raise ConfigError(f"--output {options.output}: there is no folder {options.output.parent}")
    groups = _groups(options)
    paths = options.paths or [str(group[0].folder) for group in groups]
    comparison = compare([read_subject(path, options.which, options.frozen_source) for path in paths])
    judged = _judged(groups)
    if options.format == "table":
        for item in tables(comparison):
            CONSOLE.print(item)
        for index, one in judged:
            for line in words_of(one, ("A", column(index))):
                CONSOLE.print(line, highlight=False, markup=False, soft_wrap=True)
        return CLEAN
    verdicts = [{"of": index, "beside": 0, **verdict_json(one)} for index, one in judged]
    content = {"schema": 1, "verdicts": verdicts, **to_json(comparison)}
    text = json.dumps(content, indent=1) + "\n" if options.format == "json" else page(comparison)
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")
    return CLEAN


def _groups(options: argparse.Namespace) -> list[list[MeasuredRun]]:
    """Return the runs of each side; of a path that is no run folder, as a checkpoint, none. Raises ConfigError for fewer than two
    sides."""
    from winnow.results.measured import measured_or_none, runs_in

    if options.group is None:
        if len(options.paths) < 2:
            raise ConfigError("name two or more runs or checkpoints, or --group RUN… --group RUN…")
        return [[run] if (run := measured_or_none(Path(path))) is not None else [] for path in options.paths]
    if options.paths:
        raise ConfigError(f"{options.paths[0]} stands outside of a group; give every run after a --group")
    if len(options.group) < 2:
        raise ConfigError("one --group was given; give it once for each side")
    return [_one_configuration(runs_in(paths)) for paths in options.group]


def _one_configuration(runs: list[MeasuredRun]) -> list[MeasuredRun]:
    from winnow.results.measured import differing

    keys = list(differing(runs))
    if keys:
        raise ConfigError(
            f"the runs of a group must differ in their seed alone; {runs[0].folder} and others differ in {', '.join(keys[:5])}"
        )
    seeds = [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"the runs of a group need different seeds, those of {runs[0].folder} … are {', '.join(map(str, seeds))}"
        )
    return runs


def _judged(groups: Sequence[Sequence[MeasuredRun]]) -> list[tuple[int, Judged]]:
    """Return the verdict on every group but the first, where both have a value; groups of several runs leave their spread beside
    them."""
    from winnow.compare.verdicts import judge_runs
    from winnow.results.spread import write_spread

    first, *others = groups
    judged = [(index, judge_runs(first, other)) for index, other in enumerate(others, start=1) if first and other]
    if any(len(group) > 1 for group in groups):
        write_spread([group for group in groups if group and group[0].metric == first[0].metric])
    return judged
