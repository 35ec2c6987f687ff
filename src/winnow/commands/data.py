"""``winnow data check`` and ``winnow convert``: their arguments, and the report of a check for people and for scripts."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from winnow.errors import CLEAN, PROBLEMS, ConfigError

if TYPE_CHECKING:  # torch comes with the reading of images, and `winnow --help` answers without it
    from winnow.families.detection.check import CheckReport, Finding

Splits = Mapping[str, tuple[Path, Path]]


def add_data(commands: Any) -> None:
    """The subcommand; imports nothing heavy."""
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


def add_convert(commands: Any) -> None:
    """The subcommand; imports nothing heavy."""
    convert = commands.add_parser("convert", help="turn a data set into COCO JSON")
    formats = convert.add_subparsers(required=True, metavar="FORMAT")
    bdd100k = formats.add_parser("bdd100k", help="BDD100K's own layout, label files of any generation")
    bdd100k.add_argument("source", type=Path, help="folder that holds images/100k and labels")
    bdd100k.add_argument("target", type=Path, help="folder to write annotations/ into, and images/ as links")
    bdd100k.set_defaults(run=_convert_bdd100k)


def _convert_bdd100k(options: argparse.Namespace) -> int:
    from winnow.families.detection.formats.bdd100k import convert_bdd100k, describe_counts

    for split, counts in convert_bdd100k(options.source, options.target).items():
        print(f"{split}: {describe_counts(counts)}")
    return CLEAN


def _check(options: argparse.Namespace) -> int:
    from winnow.families.detection.check import check_split, compare_splits

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
        from winnow.families.detection.formats.bdd100k import find_bdd100k

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
    from winnow.families.detection.formats.bdd100k import find_bdd100k
    from winnow.families.detection.formats.digits import DigitsSettings, make_digits
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

    from winnow.config.compose import compose_command_line
    from winnow.config.plain import plain_config

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
