"""One contestant's side of a race: steps are counted behind the optimizer, and every so many of them it waits for its turn."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

import torch

STARTED_AT = "WINNOW_RACE_STARTED_AT"
"""The environment variable in which the referee says when it started the process, in Unix seconds."""


class Channel:
    """Lines of JSON to the referee, and its words back; what libraries print goes to stderr instead."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, **message: Any) -> None:
        print(json.dumps(message), file=self._out, flush=True)

    def wait(self) -> None:
        """Wait until the referee says go; the process ends when there is nobody left to say it."""
        if sys.stdin.readline().strip() != "go":
            os._exit(0)


class Turns:
    """Hangs on to ``optimizer.step``, whoever calls it: tells when the first step is done, then takes a turn of ``block`` steps
    whenever the referee says so, and tells how long it took. Everything an engine does between two steps is in it."""

    def __init__(self, channel: Channel, block: int, optimizer: torch.optim.Optimizer) -> None:
        self._channel = channel
        self._block = block
        self._steps = 0
        self._began = 0.0
        optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *unused: Any) -> None:
        if self._steps % self._block == 0 and torch.cuda.is_initialized():
            torch.cuda.synchronize()  # steps are queued faster than they are computed
        now = time.perf_counter()
        if self._steps == 0:
            self._channel.say(first_step=time.time() - float(os.environ[STARTED_AT]), mb=peak_mb())
        elif self._steps % self._block == 0:
            self._channel.say(seconds=now - self._began, mb=peak_mb())
        if self._steps % self._block == 0:
            self._channel.wait()
            self._began = time.perf_counter()
        self._steps += 1


def peak_mb() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
