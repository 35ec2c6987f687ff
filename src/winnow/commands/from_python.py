"""winnow's commands for notebooks and scripts: composed here, or run in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from winnow.config.compose import compose_command_line
from winnow.config.plain import Config

_AS_A_TERMINAL = {"CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR"}
"""What a notebook's kernel sets, so that programs colour what they print and draw progress bars into a pipe."""


def compose(*overrides: str) -> Config:
    """Return the config, as nested dicts, that ``winnow train OVERRIDES`` would run in the working folder; run nothing.

    Raises ConfigError with what is wrong.
    """
    return compose_command_line(None, overrides).config


def call(*arguments: str | os.PathLike[str], check: bool = True) -> None:
    """Run ``winnow ARGUMENTS`` in a process of its own, and print what it prints line by line.

    An interrupt (a notebook's stop button, Ctrl-C) is passed on once, so that a training saves before it ends. Raises
    subprocess.CalledProcessError for another exit code than 0; with ``check=False`` it is printed.
    """
    command = [sys.executable, "-m", "winnow", *(str(argument) for argument in arguments)]
    inherited = {name: value for name, value in os.environ.items() if name not in _AS_A_TERMINAL}
    environment = {"COLUMNS": "120", **inherited, "PYTHONUNBUFFERED": "1"}
    # In a session of its own: a notebook's interrupt goes to the whole group, and a second one ends a training at once.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="")
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            print(process.stdout.read(), end="")
            raise
    if process.returncode != 0:
        if check:
            raise subprocess.CalledProcessError(process.returncode, command)
        print(f"exit code {process.returncode}")
