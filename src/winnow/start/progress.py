"""Steps that run as processes, and which of them are done: the same command goes on where it was stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from winnow.errors import CLEAN, ConfigError, WinnowError
from winnow.masking import masked
from winnow.reading import UnreadableError, as_record, read_json
from winnow.run_folder import write_whole
from winnow.start.steps import REPORT, Step

RECORD = "start.json"
LOG = "measured.txt"


class StepFailedError(WinnowError):
    """A step ended with problems, which it said: see to them, then give the same command again."""


@dataclass(frozen=True)
class Measured:
    """A short preflight took ``wall`` seconds; of its report ``stage`` is the one training."""

    wall: float
    stage: dict[str, Any]


@dataclass
class Progress:
    """What is done of the steps on ``source`` with ``overrides``, kept in a folder; ``done`` by name, in seconds."""

    source: str
    overrides: list[str]
    measured: Measured | None = None
    done: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, source: Path, overrides: Sequence[str]) -> Progress:
        """Return what is done in ``folder``. Raises ConfigError where that is another data set's, or began with other
        overrides."""
        path, own = folder / RECORD, cls(str(source.absolute()), [masked(text) for text in overrides])
        if not path.exists():
            return own
        try:
            found = as_record(cls, read_json(path, "what winnow start has done", ConfigError))
        except UnreadableError as error:
            raise ConfigError(f"{path} is damaged ({error}); remove it, and all steps are done again") from error
        for name, before, now in (
            ("data set", found.source, own.source),
            ("overrides", found.overrides, own.overrides),
        ):
            if before != now:
                raise ConfigError(
                    f"{folder} was begun with another {name}, {_words(before)} and not {_words(now)}; name another folder by "
                    "--output"
                )
        return found

    def write(self, folder: Path) -> None:
        write_whole(folder / RECORD, json.dumps(asdict(self), indent=1) + "\n")


def _words(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)


def run_step(step: Step, accepted: Sequence[int] = (CLEAN,), output: IO[str] | None = None) -> float:
    """Run a step to its end; return its seconds. Its output goes to this process's, or into ``output``. Raises StepFailedError
    for an exit code that is not ``accepted``; KeyboardInterrupt where this process was told to stop, when the step has saved."""
    began = time.monotonic()
    children: list[subprocess.Popen[Any]] = []
    with _passing_on(children) as stopped:
        environment = {**os.environ, **step.environment}
        children.append(subprocess.Popen(step.command, env=environment, stdout=output, stderr=output, process_group=0))
        code = children[0].wait()
    if stopped:
        raise KeyboardInterrupt
    if code not in accepted:
        raise StepFailedError(f"{step.name} ended with exit code {code}")
    return time.monotonic() - began


@contextlib.contextmanager
def _passing_on(children: Sequence[subprocess.Popen[Any]]) -> Iterator[list[int]]:
    """Pass each request to stop on to ``children`` and all that they have started, which save and end; give the list of those so
    far."""
    stopped: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        del frame
        stopped.append(number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def measure(step: Step, folder: Path) -> Measured:
    """Run a short preflight quietly. Raises StepFailedError with its errors where the training would not go well."""
    with (folder / LOG).open("w") as log:
        wall = run_step(step, accepted=(0, 1), output=log)
    try:
        report = read_json(folder / REPORT, "a preflight's report", ConfigError)
        errors = [found["message"] for part in (report, *report["stages"]) for found in part["errors"]]
        if errors:
            raise StepFailedError("this can't be trained: " + "; ".join(errors))
        return Measured(wall, _stage_of(report))
    except (UnreadableError, KeyError, TypeError) as error:
        raise StepFailedError(f"preflight gave no report; see {folder / LOG}") from error


def _stage_of(report: Mapping[str, Any]) -> dict[str, Any]:
    (stage,) = report["stages"]
    return {name: stage[name] for name in ("steps", "evaluation", "estimate")}
