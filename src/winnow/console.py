"""The one console of a process: log lines and progress bars share it, so that neither tears the other."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.text import Text

CONSOLE = Console(stderr=False, soft_wrap=True, highlight=False)

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


class ConsoleHandler(logging.Handler):
    """Prints records through ``CONSOLE``: above a progress bar on a terminal, as plain lines elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        CONSOLE.print(Text(self.format(record), style=_STYLES.get(record.levelno, "")))
