"""The check's results as JSON and as a table, written whole after each part."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_parts.outcome import Outcome

HEAD = ("part", "what", "value", "aim", "verdict")


def write_results(folder: Path, machine: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write ``results.json`` and ``results.md`` to ``folder``."""
    values = {"machine": dict(machine), "parts": [outcome.to_dict() for outcome in outcomes]}
    _replace(folder / "results.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    words = "; ".join(f"{name} {value}" for name, value in machine.items())
    _replace(folder / "results.md", f"{words}\n\n{table(outcomes)}\n")


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table with a row per figure, and one for each part that has a reason to tell."""
    rows = [HEAD]
    for outcome in outcomes:
        rows += [
            (outcome.part, figure.name, figure.words, figure.aim or "", figure.verdict) for figure in outcome.figures
        ]
        if outcome.ended is not None:
            reason = " ".join(outcome.reason.split()).replace("|", "/")
            rows.append((outcome.part, "", reason[:300], "", outcome.ended))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
