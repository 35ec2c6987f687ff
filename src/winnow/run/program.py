"""Running a Hydra program so that every mistake, wherever it is found, ends in one message. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from winnow.config.quoting import quoting_advice
from winnow.errors import EXIT_UNREAD, WinnowError, refused_path
from winnow.output import drop_unwritten_output, is_unread

FULL = "HYDRA_FULL_ERROR"
EXIT_KILLED = 130
"""What a program exits with that Ctrl-C ended before anything was saved: as shells say it."""


def run_program(main: Callable[[], object]) -> None:
    """Call ``main``, decorated by ``hydra.main``. Ends the process with 1 and a message where the user must mend something, with
    a traceback where the program must be; with 130 and a line on Ctrl-C. ``HYDRA_FULL_ERROR=1`` shows every traceback.
    """
    if os.environ.get(FULL) == "1":
        main()
        return
    _set_here.add(FULL)
    os.environ[FULL] = "1"  # Hydra then hands on what it would print, with a traceback wherever no job had begun
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before anything was saved\n")
        raise SystemExit(EXIT_KILLED) from None
    except Exception as error:  # noqa: BLE001 - the end of the program: all of it is shown
        if isinstance(error, BrokenPipeError) and is_unread():
            raise SystemExit(EXIT_UNREAD) from None
        show(error)
        raise SystemExit(1) from None
    finally:
        os.environ.pop(FULL, None)
        _set_here.clear()
        drop_unwritten_output()


def environment_of_children() -> dict[str, str]:
    """Return this process's environment as the user gave it, for processes that show their own errors."""
    return {name: value for name, value in os.environ.items() if name not in _set_here}


_set_here: set[str] = set()
"""Variables that are this process's own."""


def show(error: Exception) -> None:
    """Write an error to standard error: what the user must mend as its message, all else with its traceback."""
    message = message_of(error)
    if message is None:
        traceback.print_exception(error)
    else:
        sys.stderr.write(f"{message}\n({FULL}=1 shows the traceback)\n")


def message_of(error: Exception) -> str | None:
    """Return what the user must mend in words; None for an error of the program."""
    if isinstance(error, WinnowError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        advice = "\nhydra/sweeper=winnow searches intervals and lists alike" if "BasicSweeper" in str(error) else ""
        return f"{error}{cause}{advice}{quoting_advice(sys.argv[1:])}"
    if isinstance(error, OSError) and _is_hydras(error):
        return (
            f"the run's folder or log can't be made: {error}; choose another hydra.run.dir, of a sweep hydra.sweep.dir"
        )
    return refused_path(error)


def _is_hydras(error: OSError) -> bool:
    """Tell whether an error came up where Hydra makes a run's folder, its files or its log."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = [
        name for name in modules if name not in ("pathlib", "logging", "logging.config", "os", "genericpath", "codecs")
    ]
    return bool(inside) and inside[-1].startswith("hydra.")
