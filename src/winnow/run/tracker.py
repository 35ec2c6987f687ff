"""The tracker that a config chooses, with metrics.csv beside it, and TensorBoard files where it asks for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.config.instantiate import check_node, instantiate
from winnow.errors import ConfigError
from winnow.tracking.epoch_table import EpochTable
from winnow.tracking.pages import how_to_open

if TYPE_CHECKING:  # torch comes with it
    from winnow.protocols import Tracker


logger = logging.getLogger(__name__)


def choose_tracker(config: Mapping[str, Any], run_folder: Path, parent_folder: Path | None = None) -> Tracker:
    """Return the tracker that the node ``tracking`` names; its key ``tensorboard`` holds for every tracker and is none of its
    own. ``parent_folder`` is that of the tracked run it belongs to.

    Raises ConfigError for a wrong setting, and where TensorBoard is asked for and not installed, before anything else happens.
    """
    own, with_tensorboard = check_tracking(config)
    injected = {"parent_folder": parent_folder} if parent_folder is not None else {}
    tracker = EpochTable(_instantiate(own, run_folder, injected), run_folder)
    if not with_tensorboard:
        return tracker
    try:  # only here: TensorBoard's imports take a while
        from winnow.tracking.tensorboard import TensorBoardTracker
    except ImportError as error:
        raise ConfigError(
            f"tracking.tensorboard=true needs the package tensorboard ({error}): pip install -e '.[tensorboard]'"
        ) from error
    return TensorBoardTracker(tracker, run_folder)


def log_page(folder: Path) -> None:
    """Say where the tracked runs are to be seen, if the run in ``folder`` is tracked."""
    for line in how_to_open(folder):
        logger.info(line)


def check_tracking(config: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the config with the keys of the tracker itself, and whether TensorBoard files are wanted. Raises ConfigError for a
    wrong key."""
    node = dict(config["tracking"])
    with_tensorboard = node.pop("tensorboard", False)
    if not isinstance(with_tensorboard, bool):
        raise ConfigError(f"tracking.tensorboard={with_tensorboard!r}: must be true or false")
    own = {**config, "tracking": node}
    check_node(own, "tracking", ["run_folder"], optional=["parent_folder"])
    return own, with_tensorboard


def _instantiate(config: Mapping[str, Any], run_folder: Path, injected: Mapping[str, Any]) -> Tracker:
    tracker: Tracker = instantiate(config, "tracking", run_folder=run_folder, **injected)
    return tracker
