"""Charts as inline SVG: no script is needed to see them; ``page.js`` reads ``data-points`` for what the pointer is over."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from winnow.sections import Bars, Lines, Matrix, Parallel, Series

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 78, 14, 10, 40
NUM_COLOURS = 8
MOST_POINTS = 400
"""A longer series is thinned to so many, first and last among them."""


def lines_svg(chart: Lines) -> Markup:
    """Draw a line chart; an empty one where no series has a number."""
    series = [_thinned(_finite(one)) for one in chart.series]
    series = [one for one in series if one.x]
    if not series:
        return Markup('<p class="quiet">no numbers</p>')
    xs, ys = [x for one in series for x in one.x], [y for one in series for y in one.y]
    across = _Axis.of(xs, (LEFT, WIDTH - RIGHT), None, log=chart.log_x and min(xs) > 0)
    up = _Axis.of(ys, (HEIGHT - BOTTOM, TOP), chart.y_range)
    parts = [_frame(chart, across, up)]
    for index, one in enumerate(series):
        places = [(across.place(x), up.place(y)) for x, y in zip(one.x, one.y, strict=True)]
        kind = "faint" if one.faint else f"c{index % NUM_COLOURS}"
        if chart.points or len(places) == 1:
            parts += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline class="{kind}" points="{path}"/>')
    shown = [one for one in series if not one.faint]
    content = {
        "series": [{"name": one.name, "x": _short(one.x), "y": _short(one.y)} for one in shown],
        "xs": [[round(across.place(x), 1) for x in one.x] for one in shown],
        "x_label": chart.x_label,
    }
    legend = "".join(
        f'<span class="key"><i class="c{index % NUM_COLOURS}"></i>{escape(one.name)}</span>'
        for index, one in enumerate(series)
        if not one.faint
    )
    return Markup(
        f'<figure><figcaption>{escape(chart.title)}</figcaption><div class="legend">{legend}</div>'
        f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{escape(_in_words(chart, shown))}" data-points="{escape(json.dumps(content))}">'
        f'{"".join(parts)}<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
        '<output class="readout" aria-live="polite"></output></figure>'
    )


def bars_svg(chart: Bars) -> Markup:
    """Draw horizontal bars, each with its number."""
    known = [value for value in chart.values if math.isfinite(value)]
    largest = max([abs(value) for value in known], default=0.0) or 1.0
    rows = []
    for name, value in zip(chart.names, chart.values, strict=True):
        share = 100 * abs(value) / largest if math.isfinite(value) else 0.0
        rows.append(
            f'<div class="barname">{escape(name)}</div><div class="barline"><span style="width:{share:.1f}%"></span></div>'
            f'<div class="number">{number_text(value)}</div>'
        )
    note = f'<p class="quiet">{escape(chart.note)}</p>' if chart.note else ""
    return Markup(
        f'<figure><figcaption>{escape(chart.title)}</figcaption><div class="bars">{"".join(rows)}</div>{note}</figure>'
    )


def matrix_table(chart: Matrix) -> Markup:
    """Draw a matrix as a table whose cells are as dark as their share of the row."""
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in chart.columns)
    lines = []
    for name, values in zip(chart.rows, chart.values, strict=True):
        total = sum(values) or 1
        cells = "".join(f'<td style="--share:{value / total:.3f}">{value or ""}</td>' for value in values)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return Markup(
        f'<figure class="matrixbox"><figcaption>{escape(chart.title)}</figcaption><div class="wide" tabindex="0">'
        f'<table class="matrix"><thead><tr>'
        f"<th>{escape(chart.row_label)} ↓ {escape(chart.column_label)} →</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div></figure>"
    )


def parallel_svg(chart: Parallel) -> Markup:
    """Draw parallel coordinates; a row without a value on an axis is left out there."""
    if not chart.rows:
        return Markup('<p class="quiet">no numbers</p>')
    top, bottom, gap = TOP + 22, HEIGHT - 26, (WIDTH - 2 * LEFT) / max(1, len(chart.axes) - 1)
    scales: list[dict[str, float] | _Axis | None] = []
    parts = []
    for index, axis in enumerate(chart.axes):
        x = LEFT + index * gap
        scale: dict[str, float] | _Axis | None
        if axis.choices:
            steps = max(1, len(axis.choices) - 1)
            scale = {name: bottom - (bottom - top) * place / steps for place, name in enumerate(axis.choices)}
            ends = list(scale.items())
        else:
            known = [float(row[index]) for row in chart.rows if isinstance(row[index], int | float)]  # type: ignore[arg-type]
            scale = _Axis.of(known, (bottom, top), None, log=axis.log and min(known) > 0) if known else None
            ends = [(f"{value:.3g}", scale.place(value)) for value in (scale.low, scale.high)] if scale else []
        scales.append(scale)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{TOP + 8}" text-anchor="middle">{escape(axis.name.rpartition(".")[2])}</text>'
        )
        parts += [f'<text x="{x + 4:.1f}" y="{y + 4:.1f}">{escape(words[:14])}</text>' for words, y in ends]
    for row, shade in sorted(zip(chart.rows, chart.shades, strict=True), key=lambda pair: pair[1]):
        places = [
            (LEFT + index * gap, place)
            for index, value in enumerate(row)
            if (place := _place(scales[index], value)) is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" opacity="{0.12 + 0.88 * shade**3:.2f}"/>')
    names = ", ".join(axis.name for axis in chart.axes)
    return Markup(
        f'<figure><figcaption>{escape(chart.title)}</figcaption><svg class="parallel" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(chart.title)}: {escape(names)}">{"".join(parts)}</svg></figure>'
    )


def _place(scale: dict[str, float] | _Axis | None, value: float | str | None) -> float | None:
    if isinstance(scale, dict):
        return scale.get(str(value))
    is_known = scale is not None and isinstance(value, int | float) and math.isfinite(value)
    return scale.place(value) if is_known else None  # type: ignore[union-attr, arg-type]


def number_text(value: float) -> str:
    """Return a number for people: four digits that count, and no more zeros than needed."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 10 else f"{value:.4g}"


class _Axis:
    """Maps numbers to pixels, on a linear or a logarithmic scale."""

    def __init__(self, low: float, high: float, pixels: tuple[float, float], log: bool, whole: bool) -> None:
        self.low, self.high, self._pixels, self._log, self._whole = low, high, pixels, log, whole

    @classmethod
    def of(
        cls, values: Sequence[float], pixels: tuple[float, float], limits: tuple[float, float] | None, log: bool = False
    ) -> _Axis:
        low, high = limits or (min(values), max(values))
        whole = limits is None and all(float(value).is_integer() for value in values)
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
        return cls(low, high, pixels, log, whole)

    def place(self, value: float) -> float:
        low, high, value = (
            (math.log(x) for x in (self.low, self.high, value)) if self._log else (self.low, self.high, value)
        )
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return self._pixels[0] + share * (self._pixels[1] - self._pixels[0])

    def ticks(self) -> list[float]:
        if self._log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [10.0**power for power in range(first, last + 1)] or [self.low, self.high]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step = max(step, 1) if self._whole else step
        step = next(step * factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _frame(chart: Lines, across: _Axis, up: _Axis) -> str:
    """Draw the grid, its numbers and the axes' names."""
    bottom = HEIGHT - BOTTOM
    parts = []
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts += [
        f'<text x="{across.place(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
        for tick in across.ticks()
    ]
    middle, centre = (LEFT + WIDTH - RIGHT) / 2, (TOP + bottom) / 2
    return "".join([
        *parts,
        f'<text class="label" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(chart.x_label)}</text>',
        f'<text class="label" transform="translate(13 {centre}) rotate(-90)" text-anchor="middle">{escape(chart.y_label)}</text>',
    ])  # fmt: skip


def _finite(series: Series) -> Series:
    pairs = [(x, y) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    return Series(series.name, [x for x, _ in pairs], [y for _, y in pairs], series.faint)


def _thinned(series: Series) -> Series:
    count = len(series.x)
    if count <= MOST_POINTS:
        return series
    kept = sorted({round(index * (count - 1) / (MOST_POINTS - 1)) for index in range(MOST_POINTS)})
    return Series(series.name, [series.x[index] for index in kept], [series.y[index] for index in kept], series.faint)


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _in_words(chart: Lines, shown: Sequence[Series]) -> str:
    ends = ", ".join(f"{one.name} {number_text(one.y[0])} to {number_text(one.y[-1])}" for one in shown[:8])
    return f"{chart.title}: {chart.y_label} by {chart.x_label}; {ends}"
