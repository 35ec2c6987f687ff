import json
import math
import re
from html import unescape

import pytest

from winnow.report.charts import MOST_POINTS, bars_svg, lines_svg, matrix_table, number_text, parallel_svg
from winnow.report.page import render
from winnow.sections import (
    Axis,
    Bars,
    Commands,
    Gallery,
    Lines,
    Link,
    Matrix,
    Parallel,
    Picture,
    Section,
    Series,
    Table,
    Text,
)

EVIL = "<script>alert(1)</script>\"'&"


def points_of(svg):
    return json.loads(unescape(re.search(r'data-points="([^"]*)"', svg)[1]))


def places_of(svg, kind="c0"):
    (path,) = re.findall(rf'<polyline class="{kind}" points="([^"]*)"', svg)
    return [tuple(map(float, pair.split(","))) for pair in path.split()]


def test_a_line_lies_where_its_numbers_say():
    svg = lines_svg(Lines("a", "epoch", "value", [Series("s", [0, 1, 2], [0.0, 0.5, 1.0])]))
    places = places_of(svg)
    assert [x for x, _ in places] == pytest.approx([78, 352, 626])
    assert [y for _, y in places] == pytest.approx([260, 135, 10])


def test_a_logarithmic_axis_has_equal_steps_per_decade():
    svg = lines_svg(Lines("a", "lr", "value", [Series("s", [1e-4, 1e-3, 1e-2], [1.0, 2.0, 3.0])], log_x=True))
    assert [x for x, _ in places_of(svg)] == pytest.approx([78, 352, 626])


def test_what_is_no_number_is_left_out():
    svg = lines_svg(Lines("a", "epoch", "value", [Series("s", [1, 2, 3, 4], [1.0, math.nan, math.inf, 2.0])]))
    assert points_of(svg)["series"][0]["x"] == [1, 4]
    assert "no numbers" in lines_svg(Lines("a", "epoch", "value", [Series("s", [1], [math.nan])]))


def test_equal_values_and_single_points_are_drawn():
    assert len(places_of(lines_svg(Lines("a", "x", "y", [Series("s", [1, 2], [0.5, 0.5])])))) == 2
    assert "<circle" in lines_svg(Lines("a", "x", "y", [Series("s", [1], [0.0])]))


def test_a_long_series_is_thinned_and_keeps_its_ends():
    svg = lines_svg(Lines("a", "x", "y", [Series("s", list(range(100_000)), [float(x) for x in range(100_000)])]))
    shown = points_of(svg)["series"][0]["x"]
    assert len(shown) == MOST_POINTS
    assert (shown[0], shown[-1]) == (0, 99_999)


def test_epochs_are_numbered_in_whole_steps():
    svg = lines_svg(Lines("a", "epoch", "value", [Series("s", [1, 2], [0.0, 1.0])]))
    assert 'text-anchor="middle">1.5<' not in svg


def test_faint_lines_have_no_entry_in_the_legend():
    svg = lines_svg(Lines("a", "x", "y", [Series("one", [1, 2], [1, 2], faint=True), Series("two", [1, 2], [1, 2])]))
    assert [one["name"] for one in points_of(svg)["series"]] == ["two"]


def test_bars_are_as_long_as_their_values():
    svg = bars_svg(Bars("a", ["x", "y", "z"], [0.5, 0.25, math.nan]))
    assert re.findall(r"width:([\d.]+)%", svg) == ["100.0", "50.0", "0.0"]


def test_a_matrix_is_shaded_by_row():
    svg = matrix_table(Matrix("a", ["x", "y"], ["x", "y"], [[3, 1], [0, 0]], "true", "found"))
    assert re.findall(r"--share:([\d.]+)", svg) == ["0.750", "0.250", "0.000", "0.000"]


def test_parallel_coordinates_pass_by_what_a_row_lacks():
    svg = parallel_svg(
        Parallel(
            "a", [Axis("lr"), Axis("opt", ("adam", "sgd")), Axis("y")], [[1.0, "sgd", 2.0], [2.0, None, 3.0]], [0, 1]
        )
    )
    assert [len(path.split()) for path in re.findall(r'<polyline points="([^"]*)"', svg)] == [3, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345, "12,345"),
        (0.123456, "0.1235"),
        (1e-5, "1e-05"),
        (3.14159, "3.1416"),
        (123.456, "123.5"),
        (math.nan, "–"),
    ],
)
def test_numbers_are_short(value, text):
    assert number_text(value) == text


def test_whatever_a_page_shows_is_escaped():
    page = render(
        EVIL,
        EVIL,
        [
            Section(
                EVIL,
                [
                    Text(EVIL), Commands([(EVIL, EVIL)]), Table([EVIL], [[EVIL], [Link(EVIL, EVIL)]], EVIL),
                    Lines(EVIL, EVIL, EVIL, [Series(EVIL, [1, 2], [1, 2])]), Bars(EVIL, [EVIL], [1.0], EVIL),
                    Matrix(EVIL, [EVIL], [EVIL], [[1]], EVIL, EVIL), Gallery([Picture(EVIL, b"x")], EVIL),
                    Parallel(EVIL, [Axis(EVIL, (EVIL,)), Axis(EVIL)], [[EVIL, 1.0], [EVIL, 2.0]], [0, 1]), Picture(EVIL, b"x"),
                ],
            )
        ],
    )  # fmt: skip
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "\"'&" not in page.replace('"use strict"', "")


def test_a_page_asks_nothing_of_the_network():
    page = render("a", "b", [Section("c", [Text("d")])])
    for fetch in ("http:", "https:", "url(", "@import", 'src="/'):
        assert fetch not in page
    assert "default-src 'none'" in page
