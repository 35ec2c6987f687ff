"""The parts one after the other, each in a process of its own with a time limit, written down after each, all in one limit."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gpu_parts.forked import REPOSITORY, Forked, start
from gpu_parts.outcome import Outcome, Part, Place, Skipped, missing

SCRIPT = REPOSITORY / "benchmarks" / "gpu_check.py"
LEAST_SECONDS = 3.0
"""No part is begun with less."""
REHEARSAL_SLACK = 10
"""How much longer a part may take in a rehearsal, on a CPU that does other things, too: with a load of 17 on two cores the
slowest took 3 times its limit."""


def run_parts(
    parts: Sequence[Part], place: Place, deadline: float, report: Callable[[list[Outcome]], None], logs: Path
) -> list[Outcome]:
    """Run ``parts`` in their order until ``deadline`` (time.monotonic); ``report`` gets the outcomes of all of them after each,
    those to come as "not run". Logs are added to the file ``logs``."""
    outcomes = [Outcome(part.name, ended="not run", reason="the time was over before it began") for part in parts]
    for index, part in enumerate(parts):
        left = deadline - time.monotonic()
        if left < LEAST_SECONDS:
            report(outcomes)
            break
        own = replace(place, folder=place.folder / "parts" / part.name)
        own.folder.mkdir(parents=True)
        limit = part.seconds * (REHEARSAL_SLACK if place.smoke else 1)
        outcome = run_part(part, own, min(limit, left))
        outcomes[index] = outcome.rehearsed() if place.smoke else outcome
        _keep_log(part, own.folder / "log.txt", logs)
        report(outcomes)
    return outcomes


def run_part(part: Part, place: Place, seconds: float) -> Outcome:
    """Run ``part`` in a process of its own, for ``seconds`` at most."""
    found = place.folder / "found.json"
    began = time.monotonic()
    process = _start(part, place, found)
    code = process.wait(seconds)
    process.kill()
    outcome = Outcome(part.name)
    if found.exists():
        outcome = Outcome.of(part.name, json.loads(found.read_text()))
    outcome.seconds = time.monotonic() - began
    if code is None:
        outcome.ended, outcome.reason = "stopped", f"stopped after {seconds:.0f} s"
    elif outcome.ended is None and (code or not outcome.figures):
        outcome.ended, outcome.reason = "failed", f"its process ended with {code} and {len(outcome.figures)} figures"
    return outcome


def fill_in(part: Part, place: Place, found: Path) -> None:
    """Run ``part`` here; after each figure all of them stand in the file ``found``."""
    outcome = Outcome(part.name)
    try:
        for figure in part.find(place):
            outcome.figures.append(figure)
            _write(found, outcome)
    except Skipped as skip:
        outcome.ended, outcome.reason = "skipped", str(skip)
    except Exception as error:
        outcome.ended, outcome.reason = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        _write(found, outcome)


def _start(part: Part, place: Place, found: Path) -> Forked:
    log = place.folder / "log.txt"
    if place.is_warm:
        return start(lambda: fill_in(part, place, found), log, leads_session=True)
    told = json.dumps({"part": part.name, "place": {name: str(value) for name, value in vars(place).items()}})
    return start([sys.executable, str(SCRIPT), "--child", told], log, leads_session=True)


def _write(path: Path, outcome: Outcome) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(outcome.to_dict(), file)
    os.replace(file.name, path)


def _keep_log(part: Part, log: Path, logs: Path) -> None:
    text = log.read_text(errors="replace") if log.exists() else ""
    with logs.open("a") as file:
        file.write(f"== {part.name}\n{text[-100_000:]}\n")


def closing_words(outcomes: Sequence[Outcome]) -> str:
    """Return what the script says last: how it went, and which parts are missing."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.verdict] = counts.get(outcome.verdict, 0) + 1
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    absent = missing(outcomes)
    if not absent:
        return f"{words}; no part is missing"
    return f"{words}; missing: {', '.join(absent)} (again: --only {' '.join(absent)})"
