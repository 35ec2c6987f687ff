"""``winnow benchmark``: how fast a trained model is, and what it takes."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from winnow.commands.predict import add_computing, add_model, load_model
from winnow.errors import CLEAN


def add_benchmark(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    benchmark = commands.add_parser(
        "benchmark",
        help="measure a trained model: ms per picture, parameters, memory",
        description="Measure a trained model on square pictures of noise, of the size that it was evaluated at.",
    )
    add_model(benchmark)
    add_computing(benchmark)
    benchmark.add_argument(
        "--repeats", type=int, default=20, metavar="N", help="batches, of which the median counts; default: 20"
    )
    benchmark.add_argument("--format", choices=("table", "json"), default="table")
    benchmark.set_defaults(run=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    from rich.table import Table

    from winnow.console import CONSOLE
    from winnow.trained.speed import measure

    model = load_model(options, options.device, options.precision)
    batch_size = model.config["training"]["batch_size"] if options.batch_size is None else options.batch_size
    speed = measure(model, batch_size, options.repeats)
    if options.format == "json":
        print(
            json.dumps(
                {"model": str(model.path), "device": str(model.precision.device), **dataclasses.asdict(speed)}, indent=1
            )
        )
        return CLEAN
    table = Table("what", "value", title=f"{model.path} on {model.precision.device}")
    rows = {
        "parameters": f"{speed.parameters:,}",
        "weights": f"{speed.weights_mb:.1f} MB",
        "batch": f"{speed.batch_size} × {speed.shape[1]}×{speed.shape[0]} px",
        "forward pass": f"{speed.forward_ms:.2f} ms per picture",
        "with predictions": f"{speed.predict_ms:.2f} ms per picture",
        "peak memory": f"{speed.peak_mb:.0f} MB",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    CONSOLE.print(table)
    return CLEAN
