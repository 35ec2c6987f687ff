"""``winnow export``: a trained model as an ONNX file that was checked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from winnow.commands.predict import add_model, load_model
from winnow.errors import CLEAN


def add_export(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    export = commands.add_parser(
        "export",
        help="write a trained model as ONNX, checked by onnxruntime on the validation set",
        description="Write a trained model as ONNX: one uint8 picture of any size in; boxes in its pixels, scores and labels "
        "out. The file is run by onnxruntime over the validation set, and deleted where val/map is not the model's. "
        "Exit code: 0 written, 1 deleted or the data can't be read, 2 bad usage.",
    )
    add_model(export)
    export.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="data to check on, where the run's own is not at hand: data.KEY=VALUE changes it, data=CHOICE takes another",
    )
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="a new file; default: the checkpoint's name with .onnx"
    )
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from winnow.trained.export import require_extra

    require_extra()
    model = load_model(options, "cpu", "off")
    report = model.export(options.output or model.path.with_suffix(".onnx"), options.data)
    print(
        f"{report.path}: val/map {report.by_file:.4f} by onnxruntime, {report.by_model:.4f} by the model, "
        f"on {report.num_pictures} pictures"
    )
    return CLEAN
