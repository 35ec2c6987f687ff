"""Runs a function in several processes at once; each has imported Optuna, and what our test modules import, when it begins."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = [
    "optuna", "sqlalchemy.orm", "alembic.migration", "winnow.sweep.storage", "winnow.sweep.claims", "pytest", "psutil", "psycopg",
]  # fmt: skip
CONTEXT.set_forkserver_preload(PRELOADED)


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    process = CONTEXT.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def run_at_once(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what ``function(barrier, index, *arguments)`` returned in each of ``count`` processes, which may meet at the
    barrier."""
    barrier, results = CONTEXT.Barrier(count), CONTEXT.Queue()
    processes = [start(_report, results, function, barrier, index, *arguments) for index in range(count)]
    gathered = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    failures = [failure for _, _, failure in gathered if failure]
    assert not failures, failures[0]
    return [answer for _, answer, _ in sorted(gathered, key=lambda entry: entry[0])]


def _report(results: Any, function: Callable[..., Any], barrier: Any, index: int, *arguments: Any) -> None:
    try:
        results.put((index, function(barrier, index, *arguments), None))
    except BaseException:
        barrier.abort()
        results.put((index, None, traceback.format_exc()))
        raise
