"""The folder of a single run: made before Hydra does it, and removed again where the run is refused before it begins."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from winnow.errors import RankError
from winnow.run.program import message_of
from winnow.run_folder import PIPELINE_RECORD, MadeFolders

BEGUN = ("environment.json", "checkpoints", "tracking", PIPELINE_RECORD)
"""What a run leaves in its folder when everything that would be refused has been checked, one of it at least."""


class RefusedRun(Callback):
    """``hydra.callbacks.refused_run`` of conf/config.yaml. Hydra calls it around a run and around a sweep: winnow's sweeper makes
    the folder of a study itself, and the folders of its trials stay with them."""

    def __init__(self) -> None:
        self._folder = Path()
        self._made = MadeFolders(self._folder)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the run's folder, so that it is known which of it was there before."""
        self._make(str(config.hydra.run.dir))

    def on_run_end(self, config: DictConfig, job_return: JobReturn | None = None, **kwargs: Any) -> None:
        """Remove what was made if the run ended by what its user must mend before it began."""
        self._remove(getattr(job_return, "_return_value", None), [self._folder])  # the property would print it

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder of a sweep by Hydra's own sweeper, which ``train.py`` refuses at the first job."""
        if str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
            self._make(str(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove what was made if the sweep ended so."""
        self._remove(sys.exc_info()[1], self._folder.glob("*"))

    def _make(self, folder: str) -> None:
        self._folder = Path(folder).absolute()
        self._made = MadeFolders(self._folder)
        with contextlib.suppress(OSError):  # Hydra runs into the same, and it is shown
            self._made.make()

    def _remove(self, error: object, runs: Iterable[Path]) -> None:
        # Why another rank died stands in the folder's logs.
        is_refused = isinstance(error, Exception) and not isinstance(error, RankError) and message_of(error) is not None
        if is_refused and not any(os.path.exists(run / name) for run in runs for name in BEGUN):
            self._made.remove()
