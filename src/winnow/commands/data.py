"""``winnow data check`` and ``winnow convert``: their arguments, and the report of a check for people and for scripts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.commands.describe import add_describe
from winnow.errors import CLEAN, PROBLEMS, ConfigError

if TYPE_CHECKING:
    from winnow.data.check import DataReport, SplitProgress


def add_data(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    data = commands.add_parser("data", help="look at data sets").add_subparsers(required=True, metavar="COMMAND")
    check = data.add_parser(
        "check",
        help="read a data set whole and report what is wrong with it",
        description="Read a data set whole and report what is wrong with it, by file and annotation id. "
        "Exit code: 0 clean, 1 problems found, 2 bad usage.",
    )
    check.add_argument("overrides", nargs="*", help="as for train.py: data=bdd100k data.root=…")
    check.add_argument(
        "--config-dir",
        type=Path,
        metavar="FOLDER",
        help="a folder of your own with more config groups, as for train.py",
    )
    check.add_argument("--images", type=Path, help="folder that the file names are relative to")
    check.add_argument("--annotations", type=Path, help="COCO JSON")
    check.add_argument("--val-images", type=Path)
    check.add_argument("--val-annotations", type=Path, help="also check these, and for images that are in both")
    check.add_argument("--bdd100k", type=Path, metavar="ROOT", help="BDD100K, in its own layout or converted")
    check.add_argument("--cache", type=Path, default=Path(".cache/bdd100k"), help="for conversions of --bdd100k")
    check.add_argument("--format", choices=("table", "json"), default="table")
    check.add_argument("--limit", type=int, default=20, help="findings of one kind to show in the table; 0 = all")
    check.set_defaults(run=_check)
    add_describe(data)


def add_convert(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    convert = commands.add_parser("convert", help="turn a data set into the form that training reads")
    formats = convert.add_subparsers(required=True, metavar="FORMAT")
    bdd100k = formats.add_parser("bdd100k", help="BDD100K's own layout, label files of any generation, into COCO JSON")
    bdd100k.add_argument("source", type=Path, help="folder that holds images/100k and labels")
    bdd100k.add_argument("target", type=Path, help="folder to write annotations/ into, and images/ as links")
    bdd100k.set_defaults(run=_convert_bdd100k)
    sources = {
        "voc": "Pascal VOC, an XML per image, in any layout",
        "yolo": "YOLO, a text file per image: data.yaml, its folder, or a folder with classes.txt",
        "coco": "a folder of COCO JSON, as of Roboflow, in the layout of the others",
    }
    for name, words in sources.items():
        parser = formats.add_parser(name, help=f"{words}, into COCO JSON")
        parser.add_argument("source", type=Path, help="as data.root")
        parser.add_argument("target", type=Path, help="folder to write annotations/ into, and images/ as links")
        parser.set_defaults(run=partial(_convert_labels, name))
    maps = formats.add_parser(
        "nuscenes-map",
        help="nuScenes' tables and map expansion, into the lines around each sample",
        description="Cut the lines around each sample out of the cities' maps. The same command goes on where it stopped.",
    )
    maps.add_argument("source", type=Path, help="folder that holds v1.0-…/ and maps/expansion/")
    maps.add_argument("target", type=Path, help="folder to write into: data.ground_truth")
    maps.add_argument("--version", help="folder of the tables, where there are several: v1.0-trainval | v1.0-mini")
    maps.add_argument(
        "--infos", type=Path, help="infos of mmdetection3d 1.1 instead of tables; with --city and --scene"
    )
    maps.add_argument("--city", help="where the samples of --infos lie, as singapore-onenorth")
    maps.add_argument("--scene", help="the scene that the samples of --infos are of")
    maps.add_argument("--map-frame", choices=("lidar", "ego"), default="lidar", help="data.map_frame")
    maps.add_argument(
        "--region", type=_metres, nargs=2, default=(30.0, 60.0), metavar=("WIDTH", "LENGTH"), help="data.region, in m"
    )
    maps.add_argument(
        "--boundary-layers",
        nargs="+",
        default=("road_segment", "lane"),
        choices=("road_segment", "lane", "drivable_area"),
        help="data.boundary_layers: whose common edges are boundaries",
    )
    maps.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; 0: only this one")
    maps.set_defaults(run=_convert_nuscenes_map)


def _metres(text: str) -> float:
    metres = float(text)
    if not 0 < metres <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is no length between 0 and 1000 m")
    return metres


def _convert_bdd100k(options: argparse.Namespace) -> int:
    from winnow.families.detection.formats.bdd100k import convert_bdd100k, describe_counts
    from winnow.output import visible

    for split, counts in convert_bdd100k(options.source, options.target).items():
        print(f"{split}: {visible(describe_counts(counts))}")
    return CLEAN


def _convert_labels(name: str, options: argparse.Namespace) -> int:
    from winnow.families.detection.formats.bdd100k import describe_counts
    from winnow.families.detection.formats.coco_folder import coco_of_root, write_coco
    from winnow.families.detection.formats.conversion import write_converted
    from winnow.families.detection.formats.voc_folder import voc_of_root
    from winnow.families.detection.formats.yolo import yolo_of_root
    from winnow.output import visible

    if name == "coco":
        counts = write_coco(coco_of_root(options.source), options.target)
    else:
        counts = write_converted((voc_of_root if name == "voc" else yolo_of_root)(options.source), options.target)
    for split, counted in counts.items():
        print(f"{split}: {visible(describe_counts(counted))}")
    print(visible(f"train with: data=coco data.root={options.target}"))
    return CLEAN


def _convert_nuscenes_map(options: argparse.Namespace) -> int:
    from winnow.families.maps.conversion import Infos, convert_nuscenes_map, describe
    from winnow.families.maps.truth import Recipe
    from winnow.output import visible

    infos = None
    if options.infos is not None:
        if options.city is None or options.scene is None:
            raise ConfigError("--infos says neither the city nor the scene: name both by --city and --scene")
        infos = Infos(options.infos, options.city, options.scene)
    width, length = options.region
    recipe = Recipe(options.map_frame, width, length, tuple(options.boundary_layers))
    with _progress("convert", "scenes") as progress:
        index = convert_nuscenes_map(
            options.source, options.target, recipe, options.version, infos, options.workers, partial(progress, "")
        )
    print(visible(describe(index)))
    return CLEAN


def _check(options: argparse.Namespace) -> int:
    with _progress("check", "images") as progress:
        report = _report(options, progress)
    if options.format == "json":
        print(json.dumps(_as_json(report), indent=1, default=str))
    else:
        _print_table(report, options.limit)
    return PROBLEMS if any(finding.is_problem for _, finding in report.findings()) else CLEAN


def _report(options: argparse.Namespace, progress: SplitProgress) -> DataReport:
    """Return what the check of the data finds, by whichever of the three ways the user named them."""
    named = {name: getattr(options, name) for name in ("images", "annotations", "val_images", "val_annotations")}
    is_named = any(path is not None for path in named.values())
    if is_named + bool(options.overrides) + (options.bdd100k is not None) != 1:
        raise ConfigError("name the data in one way: --images and --annotations, --bdd100k, or data=… data.…=…")
    if options.overrides:
        return _check_config(options.overrides, options.config_dir, progress)
    from winnow.families.detection.check import check_splits
    from winnow.families.detection.formats.bdd100k import find_bdd100k
    from winnow.families.detection.rules.label_rules import CORNERS, Reading

    if options.bdd100k is not None:
        splits = find_bdd100k(options.bdd100k, options.cache)
        return check_splits(splits, progress, Reading(native=CORNERS, cache=options.cache))
    for prefix in ("", "val_"):
        if (named[f"{prefix}images"] is None) != (named[f"{prefix}annotations"] is None) or named["images"] is None:
            flag = f"--{prefix.replace('_', '-')}"
            raise ConfigError(f"{flag}images and {flag}annotations go together")
    splits = {"train": (named["annotations"], named["images"])}
    if named["val_images"] is not None:
        splits["val"] = (named["val_annotations"], named["val_images"])
    return check_splits(splits, progress, Reading(cache=Path(".cache/coco")))


def _check_config(overrides: Sequence[str], config_dir: Path | None, progress: SplitProgress) -> DataReport:
    """Return what the check finds that the builder of the composed data set brings. Raises ConfigError where it brings none."""
    from omegaconf import OmegaConf

    from winnow.builders import mark_of
    from winnow.config.compose import compose_command_line
    from winnow.config.instantiate import check_node, require_builders, target_of, trusted
    from winnow.config.plain import plain_config
    from winnow.data.check import DataReport
    from winnow.settings import build_settings

    composed = compose_command_line(None, overrides, config_dir).config
    config = plain_config(OmegaConf.create({key: composed[key] for key in ("data", "trusted_targets")}))
    require_builders(config["data"], "data", trusted(config))
    target = target_of(config["data"], "data", trusted(config))
    check_node(config, "data", ["loading"])
    mark = mark_of(target)
    if mark is None or mark.check is None:
        raise ConfigError(
            f"data._target_={config['data']['_target_']!r} has no check; give it one with @builder(…, check=FUNCTION) "
            "(docs/your_family.md), or name COCO files by --images and --annotations"
        )
    values = {name: value for name, value in config["data"].items() if name != "_target_"}
    report = mark.check(
        values if mark.settings_class is None else build_settings(mark.settings_class, values, "data"), progress
    )
    if not isinstance(report, DataReport):
        raise ConfigError(
            f"data._target_={config['data']['_target_']!r}: its check {mark.check.__qualname__} returned {report!r:.80}; "
            "it must return a winnow.data.check.DataReport"
        )
    return report


@contextlib.contextmanager
def _progress(act: str, things: str) -> Iterator[SplitProgress]:
    """Show a bar on a terminal, a line at every tenth of the ``things`` elsewhere; on stderr, for stdout carries the report."""
    from rich.progress import Progress, TaskID

    from winnow.console import PlainConsole

    console = PlainConsole(stderr=True)
    if not console.is_terminal:
        yield lambda split, done, total: _print_tenth(f"{act} {split}".strip(), done, total, things)
        return
    with Progress(console=console, transient=True) as display:
        bars: dict[str, TaskID] = {}

        def show(split: str, done: int, total: int) -> None:
            if split not in bars:
                bars[split] = display.add_task(f"{act} {split}".strip(), total=None)
            display.update(bars[split], completed=done, total=total)

        yield show


def _print_tenth(name: str, done: int, total: int, things: str) -> None:
    if done == total or done * 10 // total > (done - 1) * 10 // total:
        print(f"{name}: {done} of {total} {things}", file=sys.stderr)


def _as_json(report: DataReport) -> dict[str, Any]:
    findings = report.findings()
    return {
        "is_clean": not any(finding.is_problem for _, finding in findings),
        "splits": {
            split: {
                "annotations": str(part.annotations),
                "num_images": part.num_images,
                "num_annotations": part.num_annotations,
            }
            for split, part in report.splits.items()
        },
        "objects": report.objects,
        "counts": Counter(finding.kind for _, finding in findings),
        "findings": [{"split": split, **asdict(finding)} for split, finding in findings],
    }


def _print_table(report: DataReport, limit: int) -> None:
    from rich.table import Table

    from winnow.console import PlainConsole
    from winnow.families.detection.class_counts import count_words
    from winnow.output import visible

    findings = report.findings()
    counts = Counter((split, finding.kind) for split, finding in findings)
    shown: Counter[tuple[str, str]] = Counter()
    rows = []
    for split, finding in findings:
        shown[split, finding.kind] += 1
        if limit <= 0 or shown[split, finding.kind] <= limit:
            annotation = "" if finding.annotation is None else str(finding.annotation)
            rows.append((split, finding.kind, finding.file, annotation, finding.detail))
    console = PlainConsole()
    if rows and console.is_terminal:
        table = Table("split", "kind", "file", "annotation", "detail")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    elif rows:
        print("\n".join("\t".join(map(visible, row)) for row in rows))
    for (split, kind), count in counts.items():
        print(f"{split}: {count} × {kind}" + (f", {limit} shown (--limit 0: all)" if 0 < limit < count else ""))
    for split, part in report.splits.items():
        print(f"{split}: {part.num_images} images, {part.num_annotations} annotations read")
    for split, objects in report.objects.items():
        print(f"{split}: {visible(count_words(objects))}")
    num_problems = sum(finding.is_problem for _, finding in findings)
    print(f"{num_problems} problems" if num_problems else "no problems")
