"""Our pages in a real browser: no error, no request, no scrolling to the side, usable by keyboard. Needs Debian's chromium and
the package playwright (pip install -e '.[dev]'); .ci/run installs both."""

import pytest
from chromium import needs_browser, running_browser
from test_study_page import stored, study_of

from winnow.report.page import render
from winnow.report.study import write_study_report
from winnow.sections import Bars, Commands, Gallery, Lines, Matrix, Picture, Section, Series, Table, Text

pytestmark = [
    needs_browser,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
WIDTHS = [1280, 390]
LONG = "a_name_without_any_space_that_is_longer_than_a_narrow_screen_" * 3
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049"
    "454e44ae426082"
)


@pytest.fixture(scope="module")
def browser():
    with running_browser() as opened:
        yield opened


@pytest.fixture
def pages(tmp_path):
    """Return pages with every kind of block, and names that have no end."""
    blocks = [
        Text(LONG), Commands([("do it", f"winnow {LONG}")]), Table(["name", "value"], [[LONG, 0.5], ["b", None]], LONG),
        Lines("curve", "epoch", "loss", [Series("one", [1, 2, 3], [3.0, 2.0, 1.5]), Series(LONG, [1, 2, 3], [1.0, 2.0, 3.0])]),
        Bars("bars", [LONG, "b"], [1.0, 0.5]), Matrix("matrix", [LONG, *"abcdefghijklmnop"], [LONG, *"abcdefghijklmnop"],
        [[1] * 17] * 17, "true", "found"), Gallery([Picture(LONG, PIXEL, "image/png")] * 5, "note"),
    ]  # fmt: skip
    everything = tmp_path / "everything.html"
    everything.write_text(render(LONG, LONG, [Section(LONG, blocks), Section("two", blocks)]), encoding="utf-8")
    return [everything, write_study_report(stored(tmp_path, study_of(40)), tmp_path / "study.html")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_open_without_errors_requests_or_scrolling_to_the_side(browser, pages, width, scheme):
    for path in pages:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        problems, requests = [], []
        page.on(
            "console",
            lambda message, problems=problems: problems.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
        page.on("request", lambda request, requests=requests: requests.append(request.url))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        assert problems == []
        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
        page.close()


def test_a_chart_tells_its_numbers_to_pointer_and_keyboard(browser, pages):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(pages[0].as_uri())
    chart, readout = page.locator("svg.lines").first, page.locator("output.readout").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + 50)
    assert readout.inner_text().startswith("epoch 3: one 1.5")
    page.mouse.move(box["x"] - 50, box["y"] - 50)
    assert readout.inner_text() == ""
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("epoch 1: one 3")
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("epoch 2: one 2")
    page.close()


def test_every_section_is_reached_from_the_top(browser, pages):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(pages[1].as_uri())
    links = page.locator("nav a")
    assert links.count() == page.locator("h2").count() > 4
    links.last.press("Enter")
    assert page.locator("section").last.evaluate("section => section.getBoundingClientRect().top < innerHeight")
    page.close()
