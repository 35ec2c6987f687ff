"""``train.py`` without its seven seconds of imports: each run is a fork of a process that has made them, and a real process."""

from __future__ import annotations

import functools
import gc
import importlib
import json
import multiprocessing.process
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

TESTS = Path(__file__).parent
TRAIN = TESTS.parent / "train.py"
MARK = "WINNOW_TEST_PROCESS"
"""The environment variable by which a test finds all that its processes have started."""


@dataclass
class Program:
    """One run of ``train.py``: its process number, and the file that holds what it prints.

    ``errors`` holds what it prints to stderr; it is the same file unless asked for apart.
    """

    server: WarmProgram
    pid: int
    output: Path
    errors: Path

    def wait(self) -> int:
        """Return its exit code, or minus the signal that ended it."""
        return int(self.server.ask({"wait": self.pid}))

    def printed(self) -> str:
        return self.output.read_text()

    def wait_for_line(self, words: str, seconds: float = 180.0) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.printed():
            assert time.monotonic() < deadline, f"{words!r} was not printed:\n{self.printed()}"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class WarmProgram:
    """The process that forks; ``start`` begins a run in ``folder``."""

    def __init__(self) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "HYDRA", "TROUBLE"))}
        self._environment = clean | {
            "OMP_NUM_THREADS": "1",
            "TORCH_CPP_LOG_LEVEL": "ERROR",  # torch reads it once; a program that is not warm sets it for its ranks
            "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}",
            MARK: str(os.getpid()),
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment
        )
        self._started = 0

    def start(self, folder: Path, *arguments: str, errors_apart: bool = False, **environment: str) -> Program:
        self._started += 1
        output = folder / f"output_{self._started}.txt"
        errors = folder / f"errors_{self._started}.txt" if errors_apart else output
        output.touch()
        errors.touch()
        return Program(self, self._fork(TRAIN, folder, arguments, [output, errors], environment), output, errors)

    def start_in_session(self, program: str, folder: Path, *arguments: str, **environment: str) -> SessionLeader:
        """Start another Hydra program, in a session of its own."""
        with tempfile.TemporaryDirectory() as place:
            pipe = Path(place) / "pipe"
            os.mkfifo(pipe)
            reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            pid = self._fork(Path(program), folder, arguments, [pipe, pipe], environment, leads_session=True)
        os.set_blocking(reading, True)
        return SessionLeader(self, pid, os.fdopen(reading))

    def run(self, folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
        """Return what a run printed that ended with ``code``."""
        program = self.start(folder, *arguments, **environment)
        ended = program.wait()
        assert ended == code, f"ended with {ended} instead of {code}:\n{program.printed()}"
        return program.printed()

    def start_cold(self, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Return a process that makes its own imports."""
        with (folder / "output_cold.txt").open("wb") as output:
            command = [sys.executable, str(TRAIN), *arguments]
            return subprocess.Popen(
                command, cwd=folder, env=self._environment | environment, stdout=output, stderr=subprocess.STDOUT
            )

    def _fork(
        self,
        program: Path,
        folder: Path,
        arguments: Sequence[str],
        streams: list[Path],
        environment: dict[str, str],
        leads_session: bool = False,
    ) -> int:
        asked = {"program": str(program), "arguments": arguments, "folder": str(folder), "environment": environment}
        return self.ask(asked | {"streams": [str(path) for path in streams], "leads_session": leads_session})

    def ask(self, asked: dict[str, object]) -> Any:
        assert self._process.poll() is None, f"the warm process ended with {self._process.returncode}"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the warm process. A loader's process that a test left behind holds its input open, too, so it may need a signal."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@functools.cache
def warm_program() -> WarmProgram:
    """Return the one of this process, started when it is first needed."""
    return WarmProgram()


class SessionLeader:
    """A run in a session of its own whose output is read while it runs; used as a ``subprocess.Popen``."""

    def __init__(self, server: WarmProgram, pid: int, stdout: TextIO) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"process {self.pid} has not ended"
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float = 300.0) -> tuple[str, None]:
        """Return what it still prints until it and all that write to the same pipe have ended."""
        texts: list[str] = []
        reader = threading.Thread(target=lambda: texts.append(self.stdout.read()), daemon=True)
        reader.start()
        reader.join(timeout)
        assert not reader.is_alive(), f"process {self.pid} still has its output open"
        self.wait(timeout)
        return texts[0], None

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


USED_LATER = (
    "torch._dynamo",  # by the first optimizer
    "hotcoco", "matplotlib.backends.backend_agg", "sklearn.datasets",
    "hydra_plugins.winnow_sweeper._sweep",
)  # fmt: skip
"""What a run imports only when it needs it, and nearly every run of the tests does."""


def main() -> None:
    import hydra

    import winnow.families
    import winnow.run.pipeline

    families = [module.name for module in pkgutil.walk_packages(winnow.families.__path__, "winnow.families.")]
    for name in (*USED_LATER, *families):
        importlib.import_module(name)
    with hydra.initialize_config_dir(str(TRAIN.with_name("conf"))):
        hydra.compose("config")  # imports Hydra's plugins, and its parser remembers what it has met
    gc.freeze()  # a collection in a child touches, and so copies, no page of these
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer: int | None = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        elif "poll" in asked:
            pid, status = os.waitpid(asked["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            streams = [os.open(path, os.O_WRONLY | os.O_APPEND) for path in asked.pop("streams")]
            answer = os.fork()
            if answer == 0:
                run(**asked, streams=streams)
            for stream in streams:
                os.close(stream)
        sys.__stdout__.write(json.dumps(answer) + "\n")
        sys.__stdout__.flush()
    os._exit(0)  # some of the imported complain at an orderly end


def run(
    program: str,
    arguments: list[str],
    folder: str,
    streams: list[int],
    environment: dict[str, str],
    leads_session: bool,
) -> None:
    """Do what ``python PROGRAM ARGUMENTS`` does in ``folder``, and end this process."""
    if leads_session:
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for standard, stream in enumerate(streams, start=1):
        os.dup2(stream, standard)
        os.close(stream)
    os.chdir(folder)
    os.environ |= environment
    sys.path[0] = os.path.dirname(os.path.abspath(program))
    if "PYTHONPATH" in environment:  # this interpreter has read its own long ago
        sys.path[1:1] = environment["PYTHONPATH"].split(os.pathsep)
    multiprocessing.process.ORIGINAL_DIR = folder  # type: ignore[attr-defined]
    sys.argv = [program, *arguments]
    code = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001 - what the interpreter does at its end
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
