"""A comparison for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from winnow.compare.comparison import ABSENT, Comparison, Row
from winnow.compare.words import best_columns, change_text, column, config_note, joined, number_text, value_text
from winnow.output import visible


def tables(comparison: Comparison) -> Iterator[Table | str]:
    """Return tables of what is compared, config differences, metrics and weights, in that order."""
    yield _subjects(comparison)
    yield _rows("config differences", comparison, comparison.config)
    note = config_note(comparison)
    if note is not None:
        yield note
    yield _rows("metrics", comparison, comparison.metrics)
    yield _weights(comparison)
    yield from comparison.renamed


def _subjects(comparison: Comparison) -> Table:
    table = _table("compared", "", *map(column, range(len(comparison.subjects))))
    subjects = comparison.subjects
    table.add_row("path", *(subject.label for subject in subjects))
    table.add_row("what", *(subject.kind for subject in subjects))
    table.add_row("from", *(joined(subject.origin) for subject in subjects))
    for row in comparison.facts:
        if any(value is not ABSENT and value is not None for value in row.values):
            table.add_row(row.name, *(value_text(value) for value in row.values))
    return table


def _rows(title: str, comparison: Comparison, rows: tuple[Row, ...]) -> Table:
    table = _table(title, "", *map(column, range(len(comparison.subjects))))
    for row in rows:
        best = best_columns(comparison, row)
        cells = (
            Text(visible(value_text(value)), style="bold" if index in best else "")
            for index, value in enumerate(row.values)
        )
        table.add_row(row.name, *cells)
    return table


def _weights(comparison: Comparison) -> Table:
    others = [f"‖A−{column(index)}‖ / ‖A‖" for index in range(1, len(comparison.subjects))]
    table = _table("weights", "", "of", "parameters", "‖A‖", *others)
    for row in comparison.weights:
        changes = (change_text(change) for change in row.changes)
        table.add_row(row.name, row.kind, f"{row.num_parameters:,}", number_text(float(f"{row.norm:.5g}")), *changes)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
