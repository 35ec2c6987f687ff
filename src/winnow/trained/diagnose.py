"""What the best evaluation of a run found, judged anew from the run folder alone."""

from __future__ import annotations

from pathlib import Path

from winnow.engine.best_arrays import FILE
from winnow.errors import ConfigError
from winnow.families.detection.diagnosis import Diagnosis
from winnow.families.detection.metrics.image_result import from_arrays
from winnow.reading import read_arrays


def diagnose(run: str | Path) -> Diagnosis:
    """Return the diagnosis of a detector's run folder: curves, thresholds, confusions and errors of what its best weights found
    on the validation images. Neither model nor data is needed.

    Raises ConfigError where the folder holds no stored detections, or those of no detector.
    """
    path = Path(run) / FILE
    if not path.exists():
        raise ConfigError(f"{path} does not exist: name the run folder of a detector that was evaluated")
    arrays = read_arrays(path, ConfigError)
    try:
        return Diagnosis(from_arrays(arrays), [str(name) for name in arrays["classes"]])
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path} holds no detections of boxes: {error}") from error
