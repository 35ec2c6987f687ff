"""The page of a pipeline: its stages, each with a page of its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.report.page import FILE, render
from winnow.run_folder import write_whole
from winnow.sections import Cell, Commands, Link, Section, Table


def write_pipeline_report(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``folder``/report.html of a pipeline whose ``result.json`` will hold ``result``; return it. Raises OSError."""
    rows: list[tuple[Cell, ...]] = []
    for name, stage in result["stages"].items():
        best = stage.get("best") or {}
        link = Link(name, f"{name}/{FILE}") if (folder / name / FILE).exists() else name
        rows.append((
            link, stage["status"], best.get("metric", ""), best.get("value"), best.get("epoch"), stage["epochs"],
            round(stage["seconds"] or 0),
        ))  # fmt: skip
    columns = ("stage", "status", "objective", "best", "at epoch", "epochs", "seconds")
    quoted, last = shlex.quote(str(folder)), list(result["stages"])[-1]
    sections = [
        Section("Stages", [Table(columns, rows)]),
        Section("What to do next", [Commands([
            ("go on with the pipeline", f"python train.py training.resume={quoted}"),
            ("predict with its last stage", f"winnow predict {quoted}/{last} PICTURES --output predictions"),
        ])]),
    ]  # fmt: skip
    path = folder / FILE
    write_whole(path, render(f"pipeline of {len(rows)} stages", str(folder.absolute()), sections))
    return path
