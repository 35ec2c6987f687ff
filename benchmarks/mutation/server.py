"""A process that has torch imported and forks for each run of tests: a mutant costs its tests, not five seconds of imports.

``python -m mutation.server COPY`` takes a line of JSON per run and answers with one. It knows no module of the copy itself: each
fork imports those anew, with whatever stands in their files by then.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import psutil

SUBREAPER = 36
"""prctl's PR_SET_CHILD_SUBREAPER: what a test leaves behind becomes our child, and so can be found and ended."""
OURS = ("__", "winnow", "hydra_plugins", "conftest", "_pytest", "pytest")


def main() -> None:
    copy = Path(sys.argv[1])
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    os.chdir(copy)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        if "modules" in asked:
            preload(asked["modules"], copy)
            answer: dict[str, Any] = {}
        else:
            folder = copy.parent / f"run_{number}"
            folder.mkdir()
            answer = run(folder, **asked)
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(BrokenPipeError):  # whoever asked is gone, and nothing more is asked then
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    os._exit(0)  # some of the imported complain at an orderly end


def run(folder: Path, tests: list[str], seconds: float, durations: dict[str, float], stop: bool) -> dict[str, Any]:
    """Run ``tests`` in a fork, the quick ones first, for ``seconds`` at most; with ``stop`` up to the first that fails."""
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        run_tests(folder, tests, durations, stop)
    ended, timed_out = 0, False
    while not ended:
        time.sleep(0.01)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended and time.monotonic() - began > seconds:
            timed_out = True
            os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0)
    end_all_left()
    report = folder / "report.json"
    told = json.loads(report.read_text()) if report.exists() else {}
    output = (folder / "output.txt").read_text(errors="replace")[-3000:]
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "timed_out": timed_out, "seconds": time.monotonic() - began, "output": output, **told}


def end_all_left() -> None:
    """End whatever the tests started and did not end."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def preload(modules: list[str], copy: Path) -> None:
    """Import what a run imported besides the copy's own modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            if name not in sys.modules:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
    own = [name for name in sys.modules if lies_below(name, copy) and not name.startswith(("__", "mutation"))]
    assert not own, f"the server must not know {own}"
    gc.freeze()  # a collection in a fork touches, and so copies, no page of these


def lies_below(name: str, copy: Path) -> bool:
    return Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(copy)


def run_tests(folder: Path, tests: list[str], durations: dict[str, float], stop: bool) -> None:
    """Run them as ``python -m pytest`` does, write down what happened, and end this process."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main_module = sys.modules["__main__"]  # what a test spawns would import it
    main_module.__spec__ = None
    del main_module.__file__
    import pytest

    watch = Watch(durations)
    options = ["-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not gpu"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins that the server has imported
    options += [f"--basetemp={folder / 'pytest'}", *(["-x"] if stop else [])]
    code = pytest.main([*options, *tests], plugins=[watch])
    copy = Path.cwd()
    modules = [name for name in sys.modules if not name.startswith(OURS) and not lies_below(name, copy)]
    told = {"durations": watch.measured, "failed": watch.failed, "modules": [] if stop else modules}
    (folder / "report.json").write_text(json.dumps(told))
    os._exit(code)


class Watch:
    """A plugin of pytest that puts the quick tests first, file by file, and notes what each took and which failed."""

    def __init__(self, durations: dict[str, float]) -> None:
        self._durations = durations
        self.measured: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        of_file: dict[str, float] = {}
        for item in items:
            of_file[item.path] = of_file.get(item.path, 0.0) + self._durations.get(item.nodeid, 0.0)
        items.sort(key=lambda item: (of_file[item.path], str(item.path), self._durations.get(item.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.measured[report.nodeid] = self.measured.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)


if __name__ == "__main__":
    main()
