"""The one console of a process: log lines and progress bars share it, so that neither tears the other. What came from a user or a
file is shown as it is: never read as markup, never as a terminal's commands."""

from __future__ import annotations

import logging
import os
import re
import select
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}
# Control characters but tab and newline, halves of characters, and what changes the direction of writing.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: object) -> str:
    """Return text with each character that a terminal would obey, or can't write, as its escape: ``\\x1b``."""
    return _HIDDEN.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), str(text))


class PlainConsole(Console):
    """A console whose texts are no markup: ``[a]`` is printed as ``[a]``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(visible(text), **settings)

    def forget(self) -> None:
        """Drop what could not be written: the next print would begin with it again, and be longer each time."""
        self._buffer.clear()


CONSOLE = PlainConsole(soft_wrap=True)


def is_unread() -> bool:
    """Tell whether whoever read this process's output has gone, as ``head`` has after ten lines."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:  # it is no file
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def drop_unwritten_output() -> None:
    """Forget the output that can't be written, as into a file on a full disk: the interpreter would end the process with 120
    for it, whatever it came to."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class PlainFormatter(logging.Formatter):
    """Formats records for files that people show on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class ConsoleHandler(logging.Handler):
    """Prints records through ``CONSOLE``: above a progress bar on a terminal, as plain lines elsewhere. What can't be written, as
    into a file on a full disk, is lost, and nothing else with it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            CONSOLE.print(Text(visible(self.format(record)), style=_STYLES.get(record.levelno, "")))
        except OSError:
            CONSOLE.forget()
