"""What the best evaluation of a run found, and what is true, as arrays beside its checkpoints."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np

from winnow.protocols import Metric
from winnow.run_folder import write_whole

logger = logging.getLogger(__name__)

FILE = "val_detections.npz"


def write_best_arrays(metric: Metric, run_folder: Path, epoch: int, step: int) -> None:
    """Write ``run_folder``/val_detections.npz: ``metric.arrays()``, if it has them, and the ``epoch`` and ``step`` that they are
    of. A disk without room is said in the log, and is no reason to end the run."""
    arrays = getattr(metric, "arrays", None)
    if arrays is None:
        return
    content = io.BytesIO()
    np.savez_compressed(content, epoch=np.int64(epoch), step=np.int64(step), **arrays())
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        write_whole(run_folder / FILE, content.getvalue())
    except OSError as error:
        logger.error("%s can't be written: %s", run_folder / FILE, error)
