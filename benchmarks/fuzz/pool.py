"""Two forked workers that run cases under a memory limit and report; one that dies or takes too long is replaced."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fuzz.mutations import CANARY

from winnow.errors import WinnowError

MOST_SECONDS, MOST_BYTES = 10, 10**9
_HUNG_SECONDS = 60  # of the clock, for a machine that does other things too
_SPARE_BYTES = 3 * 10**9  # may be asked for over what a worker has at its start
_LONGEST_MESSAGE = 20_000
_CASES_PER_WORKER = 500


@dataclass
class Case:
    """One changed file: ``readers`` by what they do, called one after the other; a refusal must hold one of ``names``."""

    readers: dict[str, Callable[[], object]]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of file. ``prepare(folder)`` makes what all cases share, before the workers are forked; ``case(rng, shared,
    folder)`` writes one changed file into an empty folder. ``allowed``: errors of others that the product shows as a message."""

    name: str
    prepare: Callable[[Path], Any]
    case: Callable[[random.Random, Any, Path], Case]
    allowed: tuple[type[BaseException], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of a case: ``accepted``, ``refused`` or ``fault``; ``fault`` tells one from another,
    ``details`` tell more."""

    number: int
    kind: str
    status: str
    fault: str = ""
    details: str = ""
    seconds: float = 0.0
    grown: int = 0


def run_cases(
    kinds: Sequence[Kind], shared: Sequence[Any], numbers: Sequence[int], num_workers: int, folder: Path
) -> Iterator[Verdict]:
    """Yield the verdict on each case; its kind is that of its number, modulo how many kinds there are."""
    queue = list(reversed(numbers))
    workers = [_Worker(kinds, shared, folder / f"worker_{index}") for index in range(num_workers)]
    try:
        while queue or any(worker.number is not None for worker in workers):
            for worker in workers:
                if worker.number is None and queue:
                    worker.start(queue.pop())
            busy = {worker.connection: worker for worker in workers if worker.number is not None}
            ready = {id(connection) for connection in wait(list(busy), timeout=1.0)}
            for connection, worker in busy.items():
                verdict = worker.result(kinds) if id(connection) in ready else worker.overdue(kinds)
                if verdict is not None:
                    yield verdict
    finally:
        for worker in workers:
            worker.end()


@dataclass
class _Worker:
    kinds: Sequence[Kind]
    shared: Sequence[Any]
    folder: Path
    number: int | None = None
    _process: Any = None
    _since: float = 0.0
    _done: int = 0
    connection: Any = field(default=None)

    def start(self, number: int) -> None:
        if self._done >= _CASES_PER_WORKER:
            self.end()
        if self._process is None:
            context = multiprocessing.get_context("fork")
            self.connection, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(theirs, self.kinds, self.shared, self.folder), daemon=True
            )
            self._process.start()
            theirs.close()
            self._done = 0
        self.number, self._since = number, time.monotonic()
        self._done += 1
        self.connection.send(number)

    def result(self, kinds: Sequence[Kind]) -> Verdict:
        assert self.number is not None
        number, self.number = self.number, None
        try:
            verdict: Verdict = self.connection.recv()
            return verdict
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self.end()
            return Verdict(number, kind_of(kinds, number).name, "fault", f"the process died with {code}")

    def overdue(self, kinds: Sequence[Kind]) -> Verdict | None:
        seconds = time.monotonic() - self._since
        if seconds < _HUNG_SECONDS or self.number is None:
            return None
        number, self.number = self.number, None
        self.end()
        return Verdict(number, kind_of(kinds, number).name, "fault", f"hung for {_HUNG_SECONDS} s", seconds=seconds)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self.connection.close()


def kind_of(kinds: Sequence[Kind], number: int) -> Kind:
    return kinds[number % len(kinds)]


def _serve(connection: Connection, kinds: Sequence[Kind], shared: Sequence[Any], folder: Path) -> None:
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as strict about surrogates as a terminal
    if not os.environ.get("WINNOW_FUZZ_STDERR"):
        os.dup2(sys.stdout.fileno(), 2)
    logging.getLogger().handlers[:] = [_Formatting()]
    used = _memory("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPARE_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.freeze()
    while True:
        number = connection.recv()
        kind = kind_of(kinds, number)
        verdict = _judged(number, kind, shared[number % len(kinds)], folder)
        connection.send(verdict)


class _Formatting(logging.Handler):
    """Formats what is logged, so that a mistake in it counts."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()


def _judged(number: int, kind: Kind, shared: Any, folder: Path) -> Verdict:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)
    case = kind.case(random.Random(f"{kind.name} {number}"), shared, folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, began = _memory("VmRSS"), time.process_time()
    refusals, fault, details = [], "", ""
    expected: tuple[type[BaseException], ...] = (WinnowError, *kind.allowed)
    for name, read in case.readers.items():
        try:
            read()
        except expected as error:
            refusals.append(f"{name}: {error}")
            problem = _problem(str(error), case.names) if isinstance(error, WinnowError) else None
            if problem is not None and not fault:
                fault, details = f"{name}: {problem} ({_place(error)})", traceback.format_exc()
        except BaseException as error:  # noqa: BLE001 - this is what is looked for
            if not fault:
                fault, details = f"{name}: {type(error).__name__} in {_place(error)}", traceback.format_exc()
        if (folder / CANARY).exists():
            fault, details = f"{name}: EXECUTED", details
    seconds, grown = time.process_time() - began, _memory("VmHWM") - before
    gc.collect()
    if not fault and seconds > MOST_SECONDS:
        fault, details = f"took {seconds:.0f} s", "\n".join(refusals)
    if not fault and grown > MOST_BYTES:
        fault, details = f"took {grown / 1e9:.1f} GB", "\n".join(refusals)
    status = "fault" if fault else "refused" if refusals else "accepted"
    return Verdict(number, kind.name, status, fault, details or "\n".join(refusals)[:2000], seconds, grown)


def _problem(message: str, names: Sequence[str]) -> str | None:
    if names and not any(name in message for name in names):
        return "refusal names no file"
    if len(message) > _LONGEST_MESSAGE:
        return "refusal is over 20,000 characters long"
    return "refusal holds a traceback" if "Traceback (most recent" in message else None


def _place(error: BaseException) -> str:
    """Return the deepest function of winnow's that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if re.search(r"/src/(winnow|hydra_plugins)/", frame.filename)]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.name}"


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
