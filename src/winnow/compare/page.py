"""A comparison as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable

from winnow.compare.comparison import ABSENT, Change, Comparison, Row
from winnow.compare.words import best_columns, change_text, column, config_note, value_text
from winnow.report.page import render
from winnow.sections import Bars, Block, Cell, Section, Table, Text


def page(comparison: Comparison) -> str:
    """Return the page's text, UTF-8 when written."""
    subjects = comparison.subjects
    title = f"{len(subjects)} checkpoints compared"
    note = config_note(comparison)
    sections = [
        Section("Subjects", [_subjects(comparison)]),
        Section("Config differences", [*([Text(note)] if note else []), *_rows(comparison, comparison.config)]),
        Section("Metrics", _rows(comparison, comparison.metrics) or [Text("none in these files")]),
        Section("Weights", _weights(comparison)),
    ]
    return render(title, " · ".join(subject.label for subject in subjects), sections)


def _columns(comparison: Comparison) -> list[str]:
    return ["", *map(column, range(len(comparison.subjects)))]


def _subjects(comparison: Comparison) -> Table:
    subjects = comparison.subjects
    rows: list[list[str]] = [
        ["path", *(subject.label for subject in subjects)],
        ["what", *(subject.kind for subject in subjects)],
        ["from", *("; ".join(subject.origin) for subject in subjects)],
    ]
    rows += [
        [row.name, *map(value_text, row.values)]
        for row in comparison.facts
        if any(value is not ABSENT and value is not None for value in row.values)
    ]
    return Table(_columns(comparison), rows)


def _rows(comparison: Comparison, rows: Iterable[Row]) -> list[Block]:
    listed = list(rows)
    if not listed:
        return []
    marked = {(number, 1 + place) for number, row in enumerate(listed) for place in best_columns(comparison, row)}
    cells = [[row.name, *map(value_text, row.values)] for row in listed]
    return [Table(_columns(comparison), cells, marked=frozenset(marked))]


def _weights(comparison: Comparison) -> list[Block]:
    others = [f"‖A−{column(index)}‖ / ‖A‖" for index in range(1, len(comparison.subjects))]
    rows: list[list[Cell]] = [
        [
            row.name,
            "" if row.kind == "all" else row.kind,
            row.num_parameters,
            float(f"{row.norm:.5g}"),
            *map(change_text, row.changes),
        ]
        for row in comparison.weights
    ]
    modules = [row for row in comparison.weights if row.kind == "module"]
    charts = [
        Bars(words, [row.name for row in modules], [_relative(row.changes[place]) for row in modules])
        for place, words in enumerate(others)
        if modules
    ]
    return [
        Text("Relative change ‖A−B‖ / ‖A‖ of parameters, from A to each of the others."),
        *map(Text, comparison.renamed),
        *charts,
        Table(["", "of", "parameters", "‖A‖", *others], rows),
    ]


def _relative(change: Change) -> float:
    return math.nan if change.relative is None else change.relative
