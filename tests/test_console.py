"""What came from a user or a file is printed as it is: never as markup, never as a terminal's commands."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from rich.table import Table

from winnow.console import ConsoleHandler, PlainConsole, PlainFormatter
from winnow.output import visible
from winnow.sweep.report import ranking_table
from winnow.sweep.table import rows_of

ODD = ["[backbone]", "[/a/b]", "[red]x", ":smile:", "[link=file:///x]y[/link]", r"\[a]", "[", "[/]"]


def printed(*items):
    stream = io.StringIO()
    console = PlainConsole(file=stream, width=300)
    for item in items:
        console.print(item)
    return stream.getvalue()


@pytest.mark.parametrize("text", ODD)
def test_no_text_is_markup(text):
    table = Table(text, title=text)
    table.add_row(text)
    assert printed(table, text).count(text) == 4


def test_a_ranking_shows_values_as_they_are():
    study = optuna.create_study(direction="maximize")
    for value in ODD:
        study.add_trial(optuna.create_trial(
            params={"training.freeze": value}, value=1.0,
            distributions={"training.freeze": optuna.distributions.CategoricalDistribution(ODD)},
        ))  # fmt: skip
    shown = printed(ranking_table(rows_of(study.get_trials()), ["val/[map]"]))
    assert all(f"training.freeze={value}" in shown for value in ODD)
    assert "val/[map]" in shown


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"), ("a\nb\tc é…×", "a\nb\tc é…×"),
    ("\udc80", r"\udc80"), ("\u202ex", r"\u202ex"),
    ("a\rb", r"a\rb"), ("\x9b1m", r"\x9b1m"),
])  # fmt: skip
def test_a_terminals_commands_are_shown_and_not_obeyed(text, shown):
    assert visible(text) == shown
    assert printed(text).rstrip("\n") == shown.expandtabs(8)
    table = Table()
    table.add_row(text)
    assert "\x1b" not in printed(table)
    record = logging.makeLogRecord({"msg": "%s", "args": (text,)})
    assert PlainFormatter("%(message)s").format(record) == shown


def test_log_lines_are_printed_so_too(capsys):
    ConsoleHandler().emit(logging.makeLogRecord({"msg": "[a] [/b] \x1b[2J"}))
    assert capsys.readouterr().out.strip() == r"[a] [/b] \x1b[2J"


FULL_DISK = """
import logging
from winnow.console import CONSOLE, ConsoleHandler
from winnow.output import drop_unwritten_output
logger = logging.getLogger("full")
logger.addHandler(ConsoleHandler())
for number in range(3):
    logger.warning("line %d", number)
assert not CONSOLE._buffer
drop_unwritten_output()
raise SystemExit(75)
"""


def test_a_console_on_a_full_disk_ends_nothing_and_keeps_the_exit_code():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", FULL_DISK], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (75, "")
