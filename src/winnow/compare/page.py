"""A comparison as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from winnow.compare.comparison import ABSENT, Change, Comparison, Row
from winnow.compare.words import best_columns, change_text, column, config_note, number_text, value_text
from winnow.console import visible

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bar: #4a7fd4; --best: #2e8b57; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; } h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; } thead th { background: var(--soft); white-space: nowrap; }
tbody th { font-weight: 400; white-space: nowrap; } td { overflow-wrap: anywhere; min-width: 7rem; }
td.number { white-space: nowrap; min-width: 0; } .best { font-weight: 700; color: var(--best); }
.quiet { opacity: .6; } .all > * { font-weight: 600; } p.note { margin: .5rem 0; }
.bar { display: block; height: .3rem; border-radius: 2px; background: var(--bar); margin-top: .2rem; min-width: 1px; }
"""


def page(comparison: Comparison) -> str:
    """Return the page's text, UTF-8 when written."""
    subjects = comparison.subjects
    title = " · ".join(subject.label for subject in subjects)
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>winnow compare: {escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{len(subjects)} checkpoints compared</h1>",
        _subjects(comparison),
        "<h2>Config differences</h2>",
        _note(config_note(comparison)),
        _rows(comparison, comparison.config) if comparison.config else "",
        "<h2>Metrics</h2>",
        _rows(comparison, comparison.metrics) if comparison.metrics else _note("none in these files"),
        "<h2>Weights</h2>",
        _note("Relative change ‖A−B‖ / ‖A‖ of parameters, from A to each of the others."),
        *map(_note, comparison.renamed),
        _weights(comparison),
        "</body></html>",
    ])  # fmt: skip


def escape(text: str) -> str:
    """Return text as a page shows it: no markup, and no character that UTF-8 can't hold or that a reader would not see."""
    return html.escape(visible(text))


def _subjects(comparison: Comparison) -> str:
    subjects = comparison.subjects
    lines = [
        _line("path", [escape(subject.label) for subject in subjects]),
        _line("what", [escape(subject.kind) for subject in subjects]),
        _line("from", ["<br>".join(map(escape, subject.origin)) for subject in subjects]),
    ]
    lines += [
        _line(row.name, [escape(value_text(value)) for value in row.values])
        for row in comparison.facts
        if any(value is not ABSENT and value is not None for value in row.values)
    ]
    return _table(["", *map(column, range(len(subjects)))], lines)


def _rows(comparison: Comparison, rows: Iterable[Row]) -> str:
    lines = []
    for row in rows:
        best = best_columns(comparison, row)
        cells = [
            f'<span class="best">{escape(value_text(value))}</span>' if index in best else escape(value_text(value))
            for index, value in enumerate(row.values)
        ]
        lines.append(_line(row.name, cells))
    return _table(["", *map(column, range(len(comparison.subjects)))], lines)


def _weights(comparison: Comparison) -> str:
    others = [f"‖A−{column(index)}‖ / ‖A‖" for index in range(1, len(comparison.subjects))]
    known = [change.relative or 0.0 for row in comparison.weights for change in row.changes if _is_number(change)]
    largest = max(known, default=0.0)
    lines = []
    for row in comparison.weights:
        numbers = (f"{row.num_parameters:,}", number_text(float(f"{row.norm:.5g}")))
        cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
        changes = "".join(f"<td>{escape(change_text(change))}{_bar(change, largest)}</td>" for change in row.changes)
        of = "" if row.kind == "all" else row.kind
        lines.append(
            f'<tr class="{row.kind}"><th>{escape(row.name)}</th><td class="quiet">{of}</td>{cells}{changes}</tr>'
        )
    return _table(["", "of", "parameters", "‖A‖", *others], lines)


def _bar(change: Change, largest: float) -> str:
    """Draw a bar as long as the change is large, beside the largest on the page."""
    if not _is_number(change) or not largest:
        return ""
    return f'<span class="bar" style="width:{100 * (change.relative or 0.0) / largest:.1f}%"></span>'


def _is_number(change: Change) -> bool:
    return change.relative is not None and math.isfinite(change.relative)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _table(columns: Sequence[str], lines: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _note(text: str | None) -> str:
    return "" if text is None else f'<p class="note quiet">{escape(text)}</p>'
