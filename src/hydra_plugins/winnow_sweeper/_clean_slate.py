"""A process's state put back after a job, so that the next one starts as if the process were new."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import random
import sys
import warnings
from typing import Any


class CleanSlate:
    """The state of the process as it is now, for ``restore``. Threads and what libraries hide from us are out of reach:
    recycling the process is for those."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._folder = os.getcwd()
        self._path = list(sys.path)
        self._arguments = list(sys.argv)
        self._warnings = list(warnings.filters)
        self._loggers = {logger: _LoggerState(logger) for logger in _loggers()}
        self._torch = _torch_switches() if "torch" in sys.modules else dict(_TORCH_AT_START)

    def restore(self) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        os.chdir(self._folder)
        _restore_environment(self._environment)
        sys.path[:] = self._path
        sys.argv[:] = self._arguments
        warnings.filters[:] = self._warnings  # type: ignore[index]
        for logger in _loggers():
            self._loggers.get(logger, _FRESH).restore(logger)
        _seed_afresh()
        gc.collect()
        if "torch" in sys.modules:
            _set_torch_switches(self._torch)


class _LoggerState:
    def __init__(self, logger: logging.Logger | None = None) -> None:
        self.handlers = list(logger.handlers) if logger else []
        self.flags = (logger.level, logger.propagate, logger.disabled) if logger else None

    def restore(self, logger: logging.Logger) -> None:
        for handler in list(logger.handlers):
            if handler not in self.handlers and (self.flags or isinstance(handler, logging.FileHandler)):
                logger.removeHandler(handler)
                with contextlib.suppress(OSError, ValueError):  # a full disk, or closed by the job already
                    handler.close()
        if self.flags:
            level, logger.propagate, logger.disabled = self.flags
            if logger.level != level:  # setting it makes 1,000 loggers forget what they have looked up
                logger.setLevel(level)


_FRESH = _LoggerState()  # a logger that the job made: its library set it up once and will not do so again


def _loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]


def _restore_environment(environment: dict[str, str]) -> None:
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)


def _seed_afresh() -> None:
    """Seed from the operating system's entropy, as in a new process: else a seeded job decides what the next unseeded
    one draws.
    """
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


_TORCH_AT_START: dict[str, Any] = {
    "deterministic": False, "warn_only": False, "cudnn_deterministic": False, "cudnn_benchmark": False,
    "matmul_precision": "highest", "grad": True, "dtype": None, "threads": None,
}  # fmt: skip


def _torch_switches() -> dict[str, Any]:
    torch = sys.modules["torch"]
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
    }


def _set_torch_switches(switches: dict[str, Any]) -> None:
    torch = sys.modules["torch"]
    torch.use_deterministic_algorithms(switches["deterministic"], warn_only=switches["warn_only"])
    torch.backends.cudnn.deterministic = switches["cudnn_deterministic"]
    torch.backends.cudnn.benchmark = switches["cudnn_benchmark"]
    torch.set_float32_matmul_precision(switches["matmul_precision"])
    torch.set_grad_enabled(switches["grad"])
    torch.set_default_dtype(switches["dtype"] or torch.float32)
    if switches["threads"] is not None:
        torch.set_num_threads(switches["threads"])
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()  # raises where a device assert has broken this process for good
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
