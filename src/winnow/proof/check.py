"""Whether checkpoints that a run saved are what a repeat of its steps saves."""

from __future__ import annotations

import csv
import math
import struct
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from winnow.checkpoints.differences import differences
from winnow.checkpoints.file import read_checkpoint, write_checkpoint
from winnow.proof.moments import Saved

_CLOCK = ("timestamp", "config")
"""What is compared apart: the time of day, and the config, by which a repeat goes."""


def repeat_differences(saved: Saved, repeated: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each place where a file of ``saved`` is not what ``repeated`` holds: every tensor, counter and random
    state, and all else but the clock, the config and where the run was resumed."""
    ours = _comparable(repeated)
    for path in saved.paths:
        content = saved.content if path == saved.path else read_checkpoint(path)
        for line in differences(_comparable(content), ours):
            yield f"{path.name}: {line} (in the file, and in the repeat)"


def layout_differences(saved: Saved, before: Saved) -> Iterator[str]:
    """Yield a line for each file of ``saved`` that is not, byte for byte, what writing its content gives: what a reader passes
    over, as padding and names inside the file. Nothing where ``before`` too was written by another version of torch."""
    if not _is_as_written(before.path):
        return
    for path in saved.paths:
        if not _is_as_written(path):
            yield f"{path.name}: its bytes are not those that writing its content gives"


def clock_differences(saved: Saved, before: Saved | None, folder: Path) -> Iterator[str]:
    """Yield a line for each value of the clock that can't be: a time before the checkpoint ``before``, seconds other than those
    of the run's metrics.csv."""
    seconds = recorded_seconds(folder, saved.content)
    for path in saved.paths:
        content = saved.content if path == saved.path else read_checkpoint(path)
        own = content["progress"]["cost"]["seconds"]
        least = before.content["progress"]["cost"]["seconds"] if before is not None else 0.0
        if not (math.isfinite(own) and own >= least):
            yield f"{path.name}: progress.cost.seconds is {own!r}, after {least!r}"
        elif seconds is not None and struct.pack("<d", seconds) != struct.pack("<d", own):
            yield f"{path.name}: progress.cost.seconds is {own!r}, metrics.csv says {seconds!r}"
        time, earlier = (_time(each.get("timestamp")) for each in (content, before.content if before else content))
        if time is None or (earlier is not None and time < earlier):
            yield f"{path.name}: timestamp is {content.get('timestamp')!r:.60}"


def config_differences(saved: Saved, expected: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield a line for each setting of ``saved`` that differs from ``expected``, which stands ``where``."""
    for path in saved.paths:
        content = saved.content if path == saved.path else read_checkpoint(path)
        for line in differences(content["config"], expected, "config"):
            yield f"{path.name}: {line} (in the file, and in {where})"


def recorded_seconds(folder: Path, content: Mapping[str, Any]) -> float | None:
    """Return the seconds that metrics.csv has for the moment of ``content``; None within an epoch, or without such a row."""
    if content["progress"]["sample"]:
        return None
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if (row.get("epoch"), row.get("step")) == (str(content["epoch"]), str(content["step"])):
                    return float(row["cost/seconds"])
    except (OSError, ValueError, KeyError, csv.Error):
        return None
    return None


def _comparable(content: Mapping[str, Any]) -> dict[str, Any]:
    progress, metadata = content["progress"], content["metadata"]
    cost = {name: value for name, value in progress["cost"].items() if name != "seconds"}
    return {
        **{key: value for key, value in content.items() if key not in _CLOCK},
        "progress": {**progress, "cost": cost},
        "metadata": {key: value for key, value in metadata.items() if key != "resumed_from"},
    }


def _is_as_written(path: Path) -> bool:
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        again = Path(folder) / path.name
        write_checkpoint(again, read_checkpoint(path))
        return again.read_bytes() == path.read_bytes()


def _time(text: Any) -> datetime | None:
    """Return the time of a timestamp as winnow writes it; None for any other value."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return time if time.utcoffset() is not None and time.isoformat(timespec="seconds") == text else None
