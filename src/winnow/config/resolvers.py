"""The resolvers that winnow's YAML files use; imported before Hydra composes, so it imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from winnow.checkpoints.seal import run_folder_of
from winnow.reading import parse_yaml
from winnow.run_folder import PIPELINE_RECORD


def register_resolvers() -> None:
    """Make ``${cap:…}`` and ``${run_folder:…}`` known to OmegaConf; may be called twice."""
    OmegaConf.register_resolver("cap", cap, replace=True)
    OmegaConf.register_resolver("run_folder", run_folder, replace=True)


def cap(value: Any, limit: int | float | None) -> Any:
    """Return the smaller of ``value`` and ``limit``, where null is no limit on either side.

    ``value`` may also be a resize schedule, ``[[epoch, size], …]``, whose sizes are limited, or milestones, ``[epoch, …]``, which
    stay before the last epoch, the limit.
    """
    if isinstance(value, str):
        value = parse_yaml(value)
    if limit is None:
        return value
    if value is None:
        return limit
    if isinstance(value, int | float):
        return min(value, limit)
    if all(isinstance(epoch, int) for epoch in value):
        return sorted({min(epoch, int(limit) - 1) for epoch in value})
    return [[epoch, min(size, limit)] for epoch, size in value]


def run_folder(resume: str | None, fresh: str) -> str:
    """Return the folder of a run: a resumed run goes on in its own, ``<run>/checkpoints/last.pth`` → ``<run>``, and a stage in
    that of its pipeline; a checkpoint that lies elsewhere, or nowhere, or that another program wrote, says nothing of a
    folder."""
    if resume is None or not Path(resume).exists():
        return fresh
    folder = run_folder_of(Path(resume)) if Path(resume).is_file() else Path(resume)
    if folder is None:
        return fresh
    if (folder.parent / PIPELINE_RECORD).is_file():
        return str(folder.parent)
    is_run = (folder / PIPELINE_RECORD).is_file() or (folder / "checkpoints").is_dir()
    return str(folder) if is_run else fresh
