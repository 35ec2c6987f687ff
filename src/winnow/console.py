"""The one console of a process: log lines and progress bars share it, so that neither tears the other. What came from a user or a
file is shown as it is: never read as markup, never as a terminal's commands."""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.text import Text

from winnow.output import visible

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


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
