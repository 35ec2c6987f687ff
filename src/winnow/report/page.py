"""A page of sections as one HTML file that needs nothing else: no font, no script, no picture from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from winnow.output import visible
from winnow.report.charts import bars_svg, lines_svg, matrix_table, number_text, parallel_svg
from winnow.sections import Cell, Link, Section, Table

FILE = "report.html"
"""What a page is called in the folder that it is about."""
_TEMPLATES = Path(__file__).parent / "templates"


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the page's text, to be written as UTF-8. Whatever stands in ``sections`` is escaped, and so is each character that
    UTF-8 can't hold or a reader would not see."""
    shown = [section for section in sections if section.blocks]
    text = _environment().get_template("page.html.j2").render(
        title=title,
        subtitle=subtitle,
        sections=shown,
        style=Markup((_TEMPLATES / "page.css").read_text()),
        script=Markup((_TEMPLATES / "page.js").read_text()),
    )  # fmt: skip
    return visible(text)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "lines": lines_svg, "bars": bars_svg, "matrix": matrix_table, "parallel": parallel_svg, "cell": cell_text,
        "is_number": is_number, "is_number_column": is_number_column,
        "kind": lambda block: type(block).__name__, "base64": lambda content: base64.b64encode(content).decode(),
    }  # fmt: skip
    return environment


def cell_text(value: Cell) -> str:
    """Return what a cell shows, escaped."""
    if value is None:
        return ""
    if isinstance(value, Link):
        return Markup('<a href="{}">{}</a>').format(value.target, value.words)
    return value if isinstance(value, str) else number_text(float(value))


def is_number(value: Cell) -> bool:
    return isinstance(value, int | float)


def is_number_column(table: Table, place: int) -> bool:
    """Return whether a column holds numbers, and nothing else but empty cells."""
    cells = [row[place] for row in table.rows if row[place] is not None]
    return bool(cells) and all(map(is_number, cells))
