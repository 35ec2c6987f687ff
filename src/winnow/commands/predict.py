"""``winnow predict`` and ``winnow evaluate``: a trained model on pictures, and on a data set."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.errors import CLEAN, PROBLEMS, ConfigError

if TYPE_CHECKING:
    from winnow.trained.model import TrainedModel


def add_predict(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    predict = commands.add_parser(
        "predict",
        help="find objects on pictures with a trained model",
        description="Find objects on pictures with a trained model; needs no data set. Writes predictions.json (COCO) and "
        "pictures with what was found. Exit code: 0 all pictures were read, 1 some were left out, 2 bad usage.",
    )
    add_model(predict)
    add_computing(predict)
    predict.add_argument(
        "images", nargs="+", metavar="IMAGES", help="pictures, or folders of pictures; for models of maps infos"
    )
    predict.add_argument(
        "--infrared",
        type=Path,
        metavar="FOLDER",
        help="for models of pairs: where the infrared picture of each visible one lies, at the same place and name below it",
    )
    predict.add_argument(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="for models of maps, whose IMAGES are files of infos: where their images lie; default: beside each file",
    )
    predict.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder, new or empty")
    predict.add_argument(
        "--min-score", type=float, default=0.3, help="of what is drawn; predictions.json holds all; default: 0.3"
    )
    predict.add_argument("--no-pictures", action="store_true", help="write predictions.json alone")
    predict.add_argument(
        "--exif", choices=("auto", "never"), default="auto", help="turn pictures as their EXIF orientation says"
    )
    predict.set_defaults(run=_predict)


def add_evaluate(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate a trained model on its own data, or on another set",
        description="Evaluate a trained model with its run's own settings: on its own data that gives the run's numbers again.",
    )
    add_model(evaluate)
    add_computing(evaluate)
    evaluate.add_argument(
        "overrides", nargs="*", help="data.KEY=VALUE changes the run's data, data=CHOICE takes another"
    )
    evaluate.add_argument(
        "--split", default="val", help="val, train, or another that the data has, as test; default: val"
    )
    evaluate.add_argument("--format", choices=("table", "json"), default="table")
    evaluate.set_defaults(run=_evaluate)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add what names a trained model."""
    parser.add_argument("model", metavar="RUN", help="a run folder, or a checkpoint file")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint to take of a run folder")
    parser.add_argument(
        "--trusted-targets",
        default="",
        metavar="A,B",
        help="packages of your own that the model needs; those that the project's conf/ trusts need not be named",
    )
    parser.add_argument("--frozen-source", metavar="PATH", help="the file with frozen weights, if it has moved")


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add where and how a trained model computes."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; default: auto")
    parser.add_argument("--precision", choices=("off", "bf16", "fp16", "auto"), help="default: as in training")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: as in training")


def load_model(options: argparse.Namespace, device: str, precision: str | None) -> TrainedModel:
    """Return the model that ``add_model``'s options name."""
    from winnow.config.compose import compose_command_line
    from winnow.trained.load import load

    named = [name for name in options.trusted_targets.split(",") if name]
    trusted = [*compose_command_line(None, []).config["trusted_targets"], *named]
    return load(options.model, options.which, device, precision, trusted, options.frozen_source)


def _predict(options: argparse.Namespace) -> int:
    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        raise ConfigError(f"--output {options.output} is not empty; name a folder that is new")
    if not 0 <= options.min_score <= 1:
        raise ConfigError(f"--min-score {options.min_score} must be from 0 to 1")

    from winnow.trained.output import write_predictions
    from winnow.trained.pictures import partners_below, pictures_below

    images: list[Any] = (
        pictures_below(options.images) if options.infrared is None else partners_below(options.images, options.infrared)
    )
    model = load_model(options, options.device, options.precision)
    if hasattr(model.evaluation, "samples_in"):
        images = model.evaluation.samples_in(options.images, options.root)
    elif options.root is not None:
        raise ConfigError(f"{model.path} looks at pictures; --root is for models of maps")
    if bool(model.picture_parts) != (options.infrared is not None):
        what = f"({', '.join(model.picture_parts)})" if model.picture_parts else "single pictures"
        raise ConfigError(f"{model.path} looks at {what}; --infrared is for models of pairs, and they need it")
    report = write_predictions(
        model, images, options.output, options.batch_size, options.exif,
        None if options.no_pictures else options.min_score,
    )  # fmt: skip
    print(f"{report.num_read} pictures, {report.num_found} found; everything is in {options.output}")
    if report.problems:
        print(f"winnow: {len(report.problems)} pictures were left out", file=sys.stderr)
    return PROBLEMS if report.problems else CLEAN


def _evaluate(options: argparse.Namespace) -> int:
    from rich.table import Table

    from winnow.console import CONSOLE

    model = load_model(options, options.device, options.precision)
    metrics = model.evaluate(options.overrides, options.split, options.batch_size)
    if options.format == "json":
        print(json.dumps({"model": str(model.path), "split": options.split, "metrics": metrics}, indent=1))
        return CLEAN
    table = Table("metric", "value", title=f"{model.path}, {options.split} split")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    CONSOLE.print(table)
    return CLEAN
