"""The sweeper as Hydra finds it. Optuna and the rest are imported when a sweep begins, not at every start of Hydra."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from . import config as config  # stores the keys of hydra/sweeper=winnow


class WinnowSweeper(Sweeper):
    """``hydra/sweeper=winnow``: an Optuna search that prunes, refills, resumes, and survives being killed.

    ``settings`` are the keys of ``config.WinnowSweeperConf``. A sweep raises ConfigError for settings that can't be meant
    before anything is started.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        from ._sweep import run_sweep

        assert self.hydra_context is not None
        assert self.task_function is not None
        assert self.config is not None
        run_sweep(self._settings, self.hydra_context, self.task_function, self.config, arguments)
