"""``metrics.csv`` beside any tracker: a row per epoch, for people and programs that open a run folder."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from winnow.protocols import Tracker
from winnow.run_folder import write_whole

logger = logging.getLogger(__name__)

FILE = "metrics.csv"
_FIRST = ("epoch", "step")


class EpochTable:
    """Obeys winnow.protocols.Tracker: ``inner`` gets every call, and each epoch's numbers become a row of
    ``run_folder``/metrics.csv.

    An epoch is what is logged with a value ``epoch``. After its own numbers, its row holds the last of what was logged since the
    row before, such as learning rates. The copies ``best/…`` are left out. A run that goes on replaces the rows from its epoch
    on.
    """

    def __init__(self, inner: Tracker, run_folder: Path) -> None:
        self._inner = inner
        self._path = Path(run_folder).absolute() / FILE
        self._between: dict[str, float] = {}
        self._is_complained = False

    @property
    def run_id(self) -> str | None:
        return self._inner.run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._inner.log_params(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._inner.log_metrics(metrics, step)
        values = {name: value for name, value in numbers(metrics).items() if not name.startswith("best/")}
        if math.isfinite(values.get("epoch", math.nan)):
            self._write(
                {**values, **{name: value for name, value in self._between.items() if name not in values}, "step": step}
            )
            self._between.clear()
        else:
            self._between |= values

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self._inner.log_artifact(path, folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._inner.set_tags(tags)

    def flush(self) -> bool:
        return self._inner.flush()

    def finish(self, status: str) -> None:
        if self._path.exists():
            self._inner.log_artifact(self._path)
        self._inner.finish(status)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._inner.__exit__(*exc)

    def _write(self, row: Mapping[str, float]) -> None:
        try:
            before = [old for old in read_epochs(self._path) if old["epoch"] < row["epoch"]]
            write_whole(self._path, table([*before, row]))
        except OSError as error:
            if not self._is_complained:
                logger.error("%s can't be written, and lacks rows from here on: %s", self._path, error)
            self._is_complained = True


def read_epochs(path: Path) -> list[dict[str, float]]:
    """Return the rows of a ``metrics.csv``, each with the values it has; none where there is no such file. Cells and rows that a
    text editor or a torn disk left without a number are passed over. Raises OSError."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [numbers({name: cell for name, cell in row.items() if name and cell}) for row in csv.DictReader(file)]
    return [row for row in rows if "epoch" in row]


def table(rows: list[Mapping[str, float]]) -> str:
    """Return ``rows`` as CSV with a column for every name in any of them; what a row lacks is empty."""
    names = dict.fromkeys([*_FIRST, *(name for row in rows for name in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: int(row[name]) if name in _FIRST else row[name] for name in row} for row in rows)
    return text.getvalue()


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are numbers, as floats."""
    found = {}
    for name, value in values.items():
        with contextlib.suppress(TypeError, ValueError):
            found[str(name)] = float(value)
    return found
