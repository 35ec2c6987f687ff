"""``winnow …``: the command line beside ``train.py``; each subcommand reads its arguments and calls one function."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from winnow.compare.command import add_compare
from winnow.console import CONSOLE
from winnow.errors import ConfigError, WinnowError

if TYPE_CHECKING:  # torch comes with the reading of images, and `winnow --help` answers without it
    from winnow.data.check import CheckReport, Finding

Splits = Mapping[str, tuple[Path, Path]]
CLEAN, PROBLEMS, BAD_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit code is 0, 1 for problems found or data that cannot be used, 2 for bad usage."""
    options = _parsed(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return int(options.run(options))
    except ConfigError as error:
        print(f"winnow: {error}", file=sys.stderr)
        return BAD_USAGE
    except WinnowError as error:
        print(f"winnow: {error}", file=sys.stderr)
        return PROBLEMS


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, left = parser.parse_known_args(arguments)
    # argparse takes overrides that stand behind an option for something unknown.
    if left and (not hasattr(options, "overrides") or any(text.startswith("-") for text in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.overrides += left
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="winnow", description="What winnow does beside training (python train.py).")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_data(commands)
    _add_convert(commands)
    _add_sync(commands)
    _add_study(commands)
    _add_promote(commands)
    _add_preflight(commands)
    add_compare(commands)
    return parser


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="look at data sets").add_subparsers(required=True, metavar="COMMAND")
    check = data.add_parser(
        "check",
        help="read a data set whole and report what is wrong with it",
        description="Read a data set whole and report what is wrong with it, by file and annotation id. "
        "Exit code: 0 clean, 1 problems found, 2 bad usage.",
    )
    check.add_argument("overrides", nargs="*", help="as for train.py: data=bdd100k data.root=…; needs conf/ here")
    check.add_argument("--images", type=Path, help="folder that the file names are relative to")
    check.add_argument("--annotations", type=Path, help="COCO JSON")
    check.add_argument("--val-images", type=Path)
    check.add_argument("--val-annotations", type=Path, help="also check these, and for images that are in both")
    check.add_argument("--bdd100k", type=Path, metavar="ROOT", help="BDD100K, in its own layout or converted")
    check.add_argument("--cache", type=Path, default=Path(".cache/bdd100k"), help="for conversions of --bdd100k")
    check.add_argument("--format", choices=("table", "json"), default="table")
    check.add_argument("--limit", type=int, default=20, help="findings of one kind to show in the table; 0 = all")
    check.set_defaults(run=_check)


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser("convert", help="turn a data set into COCO JSON")
    formats = convert.add_subparsers(required=True, metavar="FORMAT")
    bdd100k = formats.add_parser("bdd100k", help="BDD100K's own layout, label files of any generation")
    bdd100k.add_argument("source", type=Path, help="folder that holds images/100k and labels")
    bdd100k.add_argument("target", type=Path, help="folder to write annotations/ into, and images/ as links")
    bdd100k.set_defaults(run=_convert_bdd100k)


def _add_sync(commands: Any) -> None:
    sync = commands.add_parser(
        "sync",
        help="send to MLflow what a run could not send while it ran",
        description="Send a run's outbox to MLflow, and those of its stages. Exit code: 0 all is sent, 1 something is left.",
    )
    sync.add_argument("run_folder", type=Path)
    sync.add_argument(
        "--patience", type=float, default=60.0, metavar="SECONDS", help="give up after so long without success"
    )
    sync.set_defaults(run=_sync)


def _add_study(commands: Any) -> None:
    study = commands.add_parser(
        "study",
        help="show a sweep's trials without touching anything",
        description="Show a sweep: its trials, the best, what runs.",
    )
    study.add_argument("folder", type=Path, help="multirun/NAME")
    study.add_argument("--storage", help="address with its password, where the study's own lacks it")
    study.set_defaults(run=_study)


def _add_promote(commands: Any) -> None:
    promote = commands.add_parser(
        "promote",
        help="train a sweep's best configurations in full",
        description="Train the best configurations of a sweep in full (budget=full), then say whether the search ranked truly. "
        "The same command again goes on where it was stopped.",
    )
    promote.add_argument("folder", type=Path, help="multirun/NAME")
    promote.add_argument("overrides", nargs="*", help="as for train.py, for all of them: training.max_epochs=50")
    promote.add_argument("--top", type=int, default=3, metavar="K")
    promote.add_argument("--storage", help="address with its password, where the study's own lacks it")
    promote.set_defaults(run=_promote)


def _add_preflight(commands: Any) -> None:
    preflight = commands.add_parser(
        "preflight",
        help="try a run before a night is spent on it",
        description="Compose, build and step a run a few times; say what is wrong with it, what it will take, and what it "
        "learns from. Trains nothing that is kept. Exit code: 0 fine, 1 errors found, 2 bad usage.",
    )
    preflight.add_argument("overrides", nargs="*", help="the same as for train.py")
    preflight.add_argument(
        "--config-dir", type=Path, default=Path("conf"), help="where the config groups lie; default: conf"
    )
    preflight.add_argument(
        "--out", type=Path, default=Path("preflight"), metavar="FOLDER", help="for pictures; default: preflight"
    )
    preflight.add_argument(
        "--json", metavar="PATH", help="write the report there as JSON; - is stdout, and the text goes to stderr"
    )
    preflight.add_argument(
        "--seconds", type=float, default=15.0, help="to spend on timed steps, at all image sizes together; default: 15"
    )
    preflight.set_defaults(run=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    from winnow.preflight import preflight

    report = preflight(options.config_dir, options.overrides, options.out, options.seconds)
    for line in report.lines():
        print(line, file=sys.stderr if options.json == "-" else sys.stdout)
    if options.json == "-":
        print(report.to_json())
    elif options.json is not None:
        Path(options.json).write_text(report.to_json() + "\n")
    return CLEAN if report.is_fine else PROBLEMS


def _study(options: argparse.Namespace) -> int:
    from winnow.sweep.report import study_lines
    from winnow.sweep.stored_study import StoredStudy

    for item in study_lines(StoredStudy.open(options.folder, options.storage)):
        CONSOLE.print(item)
    return CLEAN


def _promote(options: argparse.Namespace) -> int:
    from winnow.promotion import promote, promotion_table
    from winnow.sweep.stored_study import StoredStudy

    if options.top < 1:
        raise ConfigError(f"--top {options.top} must be at least 1")
    source = StoredStudy.open(options.folder, options.storage)
    CONSOLE.print(promotion_table(promote(source, options.top, options.overrides), source.metric))
    return CLEAN


def _sync(options: argparse.Namespace) -> int:
    from winnow.tracking.sync import sync, tracked_folders

    code = CLEAN
    for folder in tracked_folders(options.run_folder):
        report = sync(folder, options.patience)
        print(
            f"run {report.run_id}: {report.sent} events sent now, {report.unsent} events and {report.waiting_files} files left"
        )
        if report.trouble:
            print(f"winnow: {report.trouble}", file=sys.stderr)
        if report.unsent or report.waiting_files:
            code = PROBLEMS
    return code


def _convert_bdd100k(options: argparse.Namespace) -> int:
    from winnow.data.bdd100k import convert_bdd100k, describe_counts

    for split, counts in convert_bdd100k(options.source, options.target).items():
        print(f"{split}: {describe_counts(counts)}")
    return CLEAN


def _check(options: argparse.Namespace) -> int:
    from winnow.data.check import check_split, compare_splits

    reports: dict[str, CheckReport] = {}
    for split, paths in _splits(options).items():
        with _progress(f"check {split}") as progress:
            reports[split] = check_split(*paths, progress)
    findings = [(split, finding) for split, report in reports.items() for finding in report.findings]
    if len(reports) == 2:
        findings += [("both", finding) for finding in compare_splits(*reports.values())]
    if options.format == "json":
        print(json.dumps(_as_json(reports, findings), indent=1, default=str))
    else:
        _print_table(reports, findings, options.limit)
    return PROBLEMS if any(finding.is_problem for _, finding in findings) else CLEAN


def _splits(options: argparse.Namespace) -> Splits:
    """{"train": (annotations, images), "val": …} by whichever of the three ways the user named them."""
    named = {name: getattr(options, name) for name in ("images", "annotations", "val_images", "val_annotations")}
    is_named = any(path is not None for path in named.values())
    if is_named + bool(options.overrides) + (options.bdd100k is not None) != 1:
        raise ConfigError("name the data in one way: --images and --annotations, --bdd100k, or data=… data.…=…")
    if options.overrides:
        return _splits_of_config(options.overrides)
    if options.bdd100k is not None:
        from winnow.data.bdd100k import find_bdd100k

        return find_bdd100k(options.bdd100k, options.cache)
    for prefix in ("", "val_"):
        if (named[f"{prefix}images"] is None) != (named[f"{prefix}annotations"] is None) or named["images"] is None:
            flag = f"--{prefix.replace('_', '-')}"
            raise ConfigError(f"{flag}images and {flag}annotations go together")
    splits = {"train": (named["annotations"], named["images"])}
    if named["val_images"] is not None:
        splits["val"] = (named["val_annotations"], named["val_images"])
    return splits


def _splits_of_config(overrides: Sequence[str]) -> Splits:
    from winnow.data.bdd100k import find_bdd100k
    from winnow.data.digits import DigitsSettings, make_digits
    from winnow.settings import build_settings

    data = _composed_data(overrides)
    name = data["_target_"].rpartition(".")[2]
    if name == "bdd100k_data":
        return find_bdd100k(Path(data["root"]), Path(data["cache"]))
    if name == "digits_data":
        settings = build_settings(DigitsSettings, {key: data[key] for key in DigitsSettings.model_fields}, "data")
        folder = make_digits(Path(data["root"]), settings)
        return {split: (folder / f"annotations/instances_{split}.json", folder / split) for split in ("train", "val")}
    if name == "coco_data":
        parts = {split: data[split] for split in ("train", "val") if (data[split] or {}).get("annotations") is not None}
        return {split: (Path(part["annotations"]), Path(part["images"])) for split, part in parts.items()}
    raise ConfigError(f"data._target_={data['_target_']!r} is not known to the check; use --images and --annotations")


def _composed_data(overrides: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from winnow.composed import plain_config
    from winnow.composing import compose_command_line

    data = compose_command_line(Path("conf"), overrides).config["data"]
    return cast(dict[str, Any], plain_config(OmegaConf.create({"data": data}))["data"])


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line at every tenth of the images elsewhere; on stderr, for stdout carries the report."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: _print_tenth(name, done, total)
        return
    with Progress(console=console, transient=True) as display:
        bar = display.add_task(name, total=None)
        yield lambda done, total: display.update(bar, completed=done, total=total)


def _print_tenth(name: str, done: int, total: int) -> None:
    if done == total or done * 10 // total > (done - 1) * 10 // total:
        print(f"{name}: {done} of {total} images", file=sys.stderr)


def _as_json(reports: Mapping[str, CheckReport], findings: Sequence[tuple[str, Finding]]) -> dict[str, Any]:
    return {
        "is_clean": not any(finding.is_problem for _, finding in findings),
        "splits": {
            split: {
                "annotations": str(report.annotations),
                "num_images": report.num_images,
                "num_annotations": report.num_annotations,
            }
            for split, report in reports.items()
        },
        "counts": Counter(finding.kind for _, finding in findings),
        "findings": [{"split": split, **asdict(finding)} for split, finding in findings],
    }


def _print_table(reports: Mapping[str, CheckReport], findings: Sequence[tuple[str, Finding]], limit: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    counts = Counter((split, finding.kind) for split, finding in findings)
    shown: Counter[tuple[str, str]] = Counter()
    rows = []
    for split, finding in findings:
        shown[split, finding.kind] += 1
        if limit <= 0 or shown[split, finding.kind] <= limit:
            annotation = "" if finding.annotation is None else str(finding.annotation)
            rows.append((split, finding.kind, finding.file, annotation, finding.detail))
    console = Console()
    if rows and console.is_terminal:
        table = Table("split", "kind", "file", "annotation", "detail")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    elif rows:
        print("\n".join("\t".join(row) for row in rows))
    for (split, kind), count in counts.items():
        print(f"{split}: {count} × {kind}" + (f", {limit} shown (--limit 0: all)" if 0 < limit < count else ""))
    for split, report in reports.items():
        print(f"{split}: {report.num_images} images, {report.num_annotations} annotations read")
    num_problems = sum(finding.is_problem for _, finding in findings)
    print(f"{num_problems} problems" if num_problems else "no problems")
