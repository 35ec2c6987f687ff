"""``train.py`` without its five seconds of imports: each run is a fork of a process that has made them, and a real process."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
TRAIN = TESTS.parent / "train.py"


@dataclass
class Program:
    """One run of ``train.py``: its process number, and the file that holds what it prints."""

    server: WarmProgram
    pid: int
    output: Path

    def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        return self.server.ask({"wait": self.pid})

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
            "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}",
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment
        )
        self._started = 0

    def start(self, folder: Path, *arguments: str, **environment: str) -> Program:
        self._started += 1
        output = folder / f"output_{self._started}.txt"
        output.touch()
        asked = {"arguments": arguments, "folder": str(folder), "output": str(output), "environment": environment}
        return Program(self, self.ask(asked), output)

    def run(self, folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
        """What a run printed that ended with ``code``."""
        program = self.start(folder, *arguments, **environment)
        ended = program.wait()
        assert ended == code, f"ended with {ended} instead of {code}:\n{program.printed()}"
        return program.printed()

    def start_cold(self, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """A process that makes its own imports."""
        with (folder / "output_cold.txt").open("wb") as output:
            command = [sys.executable, str(TRAIN), *arguments]
            return subprocess.Popen(
                command, cwd=folder, env=self._environment | environment, stdout=output, stderr=subprocess.STDOUT
            )

    def ask(self, asked: dict[str, object]) -> int:
        assert self._process.poll() is None, f"the warm process ended with {self._process.returncode}"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    import winnow.run.pipeline  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                train(**asked)
        sys.__stdout__.write(f"{answer}\n")
        sys.__stdout__.flush()


def train(arguments: list[str], folder: str, output: str, environment: dict[str, str]) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.chdir(folder)
    os.environ |= environment
    if "PYTHONPATH" in environment:  # this interpreter has read its own long ago
        sys.path[1:1] = environment["PYTHONPATH"].split(os.pathsep)
    sys.argv = [str(TRAIN), *arguments]
    code = 0
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
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
