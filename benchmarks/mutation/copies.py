"""Copies of the work tree in which a file is changed and tests are run; the work tree itself is never touched."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from mutation.operators import Mutant

REPOSITORY = Path(__file__).resolve().parents[2]


class Copy:
    """The work tree's files (tracked, or new and not ignored) in ``folder``, and the server that runs tests there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "winnow"
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            source = REPOSITORY / name
            if source.is_file() and not source.is_symlink():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, self.root / name)
        if (REPOSITORY.parent / "shared").is_dir():
            (folder / "shared").symlink_to(REPOSITORY.parent / "shared")
        # Where Python finds bytecode newer than a file by whole seconds it believes it, so none is written for changed files.
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(self.root / part) for part in ("src", "benchmarks")),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        compiling = [sys.executable, "-m", "compileall", "-q", "src", "tests"]
        subprocess.run(compiling, cwd=self.root, env=environment, check=True)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "mutation.server", str(self.root)], cwd=self.root, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    @contextlib.contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """Change the file inside this context."""
        path = self.root / mutant.path
        source = path.read_bytes()
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_bytes(mutant.applied(source))
        try:
            yield
        finally:
            path.write_bytes(source)

    def run(self, tests: list[str], seconds: float, durations: dict[str, float], stop: bool) -> dict[str, Any]:
        """Run ``tests``; see ``server.run``."""
        return self._ask({"tests": tests, "seconds": seconds, "durations": durations, "stop": stop})

    def preload(self, modules: list[str]) -> None:
        """Let the server import ``modules``, so that no run has to."""
        self._ask({"modules": modules})

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of {self.root} ended with {self._server.wait()}; see the messages above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the server and whatever it is running."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(self._server.pid).children(recursive=True), self._server]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._server.wait()
