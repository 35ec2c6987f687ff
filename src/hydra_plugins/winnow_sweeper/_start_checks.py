"""What a sweep checks of its runs before it starts any: in a process of its own, since it takes torch and the families to know
what a run refuses, and the sweep itself does without."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import Pipe
from typing import Any, Self

from hydra_plugins.winnow_sweeper._plan import ComposedRun, Plan
from hydra_plugins.winnow_sweeper._single_run import describe_exit
from winnow.errors import WinnowError

MODULE = "winnow.run.refusals"


class StartChecks:
    """Asks ``winnow.run.refusals`` what runs would be refused for. The process that answers begins to import at once, while the
    sweep composes; a process that has torch already answers itself. To be closed."""

    def __init__(self, is_needed: bool, in_child: bool | None = None) -> None:
        self._is_needed = is_needed
        self._child: subprocess.Popen[bytes] | None = None
        if is_needed and ("torch" not in sys.modules if in_child is None else in_child):
            self._start()

    def refusals(self, plan: Plan, runs: Sequence[ComposedRun]) -> list[str | None]:
        """Return for each of ``runs`` why it would be refused at its start, None where it would begin. Raises WinnowError
        with the last words of a process that does not answer."""
        if not self._is_needed:
            return [None] * len(runs)
        settings = plan.settings
        question = (
            [(run.config, run.parts) for run in runs], plan.folder.absolute() / "a trial", settings.metrics,
            settings.direction, settings.force_direction,
        )  # fmt: skip
        if self._child is None:
            found: list[str | None] = importlib.import_module(MODULE).refusals(*question)
            return found
        return self._ask(question)

    def close(self) -> None:
        if self._child is not None:
            self._pipe.close()
            self._child.kill()
            self._child.wait()
            self._words.close()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _start(self) -> None:
        self._pipe, other = Pipe()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - what the process prints is shown where it does not answer
        command = f"import sys; sys.path[:] = {sys.path!r}; import {MODULE} as m; m.answer({other.fileno()})"
        self._child = subprocess.Popen(
            [sys.executable, "-c", command], stdin=subprocess.DEVNULL, stdout=self._words, stderr=self._words,
            pass_fds=[other.fileno()], start_new_session=True, env=dict(os.environ),
        )  # fmt: skip
        other.close()

    def _ask(self, question: Any) -> list[str | None]:
        assert self._child is not None
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(question)
        try:
            found: list[str | None] = self._pipe.recv()
        except (EOFError, OSError):
            code = self._child.wait()
            self._words.seek(0)
            said = self._words.read().decode(errors="replace").strip() or "it said nothing"
            raise WinnowError(
                f"the process that checks the runs of a sweep ended with {describe_exit(code)}: {said.splitlines()[-1]}"
            ) from None
        return found
