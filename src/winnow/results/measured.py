"""What a run folder says of a run's worth: its objective, its configuration without the seed, its stored detections."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.config.flat import flat
from winnow.errors import ConfigError, WinnowError
from winnow.reading import UnreadableError, parse_json, parse_yaml

DETECTIONS = "val_detections.npz"
MOST_LOOKED_AT = 1000
"""Folders beside a run that are looked at for repeats of it."""
_NOT_THE_CONFIGURATION = (
    "tracking.",
    "report",
    "trusted_targets",
    "training.resume",
    "training.num_workers",
    "training.device",
)
SEED = "training.seed"


@dataclass(frozen=True)
class MeasuredRun:
    """A run that ended: the best ``value`` of its objective ``metric``, and by what it was made. ``config`` is flat, as a text
    without the seed and what changes no result."""

    folder: Path
    metric: str
    maximize: bool
    value: float
    seed: Any
    config: str
    data: str = field(repr=False)

    @property
    def detections(self) -> Path | None:
        path = self.folder / DETECTIONS
        return path if path.is_file() else None


def read_measured(folder: Path) -> MeasuredRun:
    """Return what the run of ``folder`` measured. Raises ConfigError for a folder without a result of its own."""
    try:
        result, config = (
            parse_json((folder / "result.json").read_bytes()),
            parse_yaml((folder / "config.yaml").read_bytes()),
        )
    except (OSError, UnreadableError) as error:
        raise ConfigError(f"{folder} has no result of a run: {error}") from None
    best = result.get("best") if isinstance(result, dict) else None
    objective = config.get("objective") if isinstance(config, dict) else None
    if not isinstance(best, dict) or not isinstance(best.get("value"), int | float) or not isinstance(objective, dict):
        raise ConfigError(f"{folder} has no value of an objective: its run was never evaluated")
    keys = flat(config)
    kept = {key: value for key, value in keys.items() if key != SEED and not key.startswith(_NOT_THE_CONFIGURATION)}
    data = {key: value for key, value in kept.items() if key.startswith("data.")}
    is_own = best.get("metric") == objective.get("metric")
    return MeasuredRun(
        folder,
        str(best.get("metric")),
        (objective.get("mode") if is_own else "min") == "max",
        float(best["value"]),
        keys.get(SEED),
        *(json.dumps(values, sort_keys=True, default=str) for values in (kept, data)),
    )


def runs_in(paths: Sequence[Path]) -> list[MeasuredRun]:
    """Return the runs that ``paths`` name: run folders, or folders that hold run folders. Raises ConfigError for one that is
    neither."""
    found: list[MeasuredRun] = []
    for path in paths:
        if (path / "result.json").is_file() and not any(_run_folders(path)):
            found.append(read_measured(path))
            continue
        inside = [run for folder in _run_folders(path) if (run := measured_or_none(folder)) is not None]
        if not inside:
            raise ConfigError(f"{path} holds no run that has ended")
        found += inside
    return found


def measured_or_none(folder: Path) -> MeasuredRun | None:
    """Return what a run measured, None where it measured nothing."""
    try:
        return read_measured(folder)
    except WinnowError:
        return None


def repeats_beside(run: MeasuredRun) -> list[MeasuredRun]:
    """Return the runs of the same configuration in the study or folder of ``run``, itself among them, one for each seed."""
    own = run.folder.absolute()
    places = [own.parent]
    if any(path.name == "sweep.yaml" for path in own.parent.parent.glob("sweep.yaml")):  # of a trial with several seeds
        places.append(own.parent.parent)
    by_seed = {run.seed: run}
    for place in places:
        folders = [*_run_folders(place), *(inner for folder in _folders(place) for inner in _run_folders(folder))]
        for folder in folders[:MOST_LOOKED_AT]:
            other = measured_or_none(folder)
            if other is not None and (other.config, other.metric) == (run.config, run.metric):
                by_seed.setdefault(other.seed, other)
    return list(by_seed.values())


def _run_folders(folder: Path) -> list[Path]:
    return [
        inner for inner in _folders(folder) if (inner / "result.json").is_file() and (inner / "config.yaml").is_file()
    ]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(inner for inner in folder.iterdir() if inner.is_dir())
    except OSError:
        return []


def values_of(runs: Sequence[MeasuredRun]) -> list[float]:
    return [run.value for run in runs]


def differing(runs: Sequence[MeasuredRun]) -> Iterator[str]:
    """Yield the keys in which the configurations of ``runs`` differ."""
    configs: list[Mapping[str, Any]] = [json.loads(run.config) for run in runs]
    for key in dict.fromkeys(key for config in configs for key in config):
        if any(config.get(key) != configs[0].get(key) for config in configs[1:]):
            yield key
