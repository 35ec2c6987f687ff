"""The choice of a sweep's slots, by ``hydra/launcher`` and a few of the sweeper's settings."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from omegaconf import DictConfig

from hydra_plugins.winnow_sweeper._devices import Devices, await_devices, visible_devices, wanted_devices
from hydra_plugins.winnow_sweeper._in_process import InProcessSlots
from hydra_plugins.winnow_sweeper._job import Slots
from hydra_plugins.winnow_sweeper._launchers import LauncherSlots
from hydra_plugins.winnow_sweeper._notes import clear_up
from hydra_plugins.winnow_sweeper._pool import PoolSlots
from hydra_plugins.winnow_sweeper._settings import SweeperSettings
from hydra_plugins.winnow_sweeper._single_run import Work
from winnow.errors import ConfigError

logger = logging.getLogger(__name__)

# Launchers that would run trials on this machine without help from outside: our own processes do it better.
_OURS = ("BasicLauncher", "JoblibLauncher")


def open_slots(
    work: Work,
    n_jobs: int,
    *,
    devices: Devices,
    in_process: bool,
    recycle_after: int | None,
    warm_up: tuple[str, ...],
    shows_output: bool = False,
) -> Slots:
    """Return the slots of a sweep with these settings, to be closed by the caller; first clear up what dead sweeps left
    on clusters. Raises ConfigError if the settings contradict each other.
    """
    kind = check_slots(work.config, n_jobs, devices, in_process, recycle_after)
    clear_up(Path(str(work.config.hydra.sweep.dir)))
    if in_process:
        return InProcessSlots(work, await_devices(devices, 1))
    if kind in _OURS:
        if kind == "JoblibLauncher":
            logger.info(
                "hydra/launcher=joblib: the trials run in winnow's own worker processes, hydra.sweeper.n_jobs=%s",
                n_jobs,
            )
        return PoolSlots(work, n_jobs, await_devices(devices, n_jobs), warm_up, recycle_after, shows_output)
    # A cluster gives each of its jobs the GPUs that it asked for.
    return LauncherSlots(work, n_jobs, await_devices(devices, n_jobs) if kind == "LocalLauncher" else None)


def num_jobs(settings: SweeperSettings) -> int:
    """Return ``n_jobs``; ``auto`` is one slot per GPU, or per two cores if there is none."""
    asked = settings.n_jobs
    if isinstance(asked, int):
        return asked
    if settings.in_process:
        return 1
    gpus = len(visible_devices()) if settings.devices == "auto" else len(settings.devices or ())
    return gpus or max(1, (os.cpu_count() or 1) // 2)


def check_devices(config: DictConfig, n_jobs: int, devices: Devices) -> None:
    """Raise ConfigError where the slots need more devices of this machine than there are."""
    if str(config.hydra.launcher._target_).endswith((*_OURS, "LocalLauncher")):
        wanted_devices(devices, n_jobs)


def check_slots(config: DictConfig, n_jobs: int, devices: Devices, in_process: bool, recycle_after: int | None) -> str:
    """Return the kind of launcher that ``config`` names. Raises ConfigError if the settings contradict it or each other."""
    kind = str(config.hydra.launcher._target_).rsplit(".", 1)[-1]
    if n_jobs < 1:
        raise ConfigError(f"hydra.sweeper.n_jobs={n_jobs} must be at least 1")
    if recycle_after is not None and recycle_after < 1:
        raise ConfigError(f"hydra.sweeper.recycle_after={recycle_after} must be at least 1, or null for never")
    if in_process and n_jobs > 1:
        raise ConfigError(
            f"hydra.sweeper.in_process=true runs one trial at a time: hydra.sweeper.n_jobs={n_jobs} must be 1"
        )
    if in_process and kind not in _OURS:
        raise ConfigError(
            f"hydra.sweeper.in_process=true runs trials right here: hydra/launcher must be basic, got {kind}"
        )
    if kind not in (*_OURS, "LocalLauncher") and devices not in ("auto", None):
        raise ConfigError(
            f"hydra.sweeper.devices={list(devices or ())} are this machine's, but {kind} runs trials elsewhere: ask there "
            "for GPUs, as hydra.launcher.gpus_per_node=1 (SLURM) or +hydra.launcher.ray.remote.num_gpus=1 (Ray), and devices=auto"
        )
    return kind
