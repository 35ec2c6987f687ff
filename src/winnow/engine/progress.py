"""The progress bar on a terminal; nothing where there is none, for the log's lines say enough."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from rich import progress as bars

from winnow.console import CONSOLE


class Advance(Protocol):
    def __call__(self, samples: int, loss: float | None = None) -> None:
        """Count one batch more, of ``samples`` samples, and show ``loss`` from here on."""
        ...


class Progress:
    """Bars with loss, samples per second and the time left, one at a time; none where not ``shown``."""

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown

    @contextlib.contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show a bar of ``total`` batches, gone when the context ends."""
        if not (self._shown and CONSOLE.is_terminal):
            yield _ignore
            return
        columns: list[Any] = [
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[loss]}", markup=False),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeElapsedColumn(),
            bars.TextColumn("eta"),
            bars.TimeRemainingColumn(),
        ]
        with bars.Progress(*columns, console=CONSOLE, transient=True, refresh_per_second=4) as display:
            bar = display.add_task(name, total=total, completed=done, loss="", rate="")
            samples_seen = 0

            def advance(samples: int, loss: float | None = None) -> None:
                nonlocal samples_seen
                samples_seen += samples
                elapsed = display.tasks[0].elapsed or 0.0
                fields: dict[str, Any] = {"rate": f"{samples_seen / elapsed:.0f} samples/s"} if elapsed > 0 else {}
                if loss is not None:
                    fields["loss"] = f"loss {loss:.4f}"
                display.update(bar, advance=1, **fields)

            yield advance


def _ignore(samples: int, loss: float | None = None) -> None:
    del samples, loss
