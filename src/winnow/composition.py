"""The resolvers that winnow's YAML files use; imported before Hydra composes, so it imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from winnow.engine.seal import run_folder_of


def register_resolvers() -> None:
    """Make ``${cap:…}`` and ``${run_folder:…}`` known to OmegaConf; may be called twice."""
    OmegaConf.register_resolver("cap", cap, replace=True)
    OmegaConf.register_resolver("run_folder", run_folder, replace=True)


def cap(value: Any, limit: int | float | None) -> Any:
    """The smaller of ``value`` and ``limit``, where null is no limit on either side.

    ``value`` may also be a resize schedule, ``[[epoch, size], …]``, whose sizes are limited.
    """
    if isinstance(value, str):
        value = yaml.safe_load(value)
    if limit is None:
        return value
    if value is None:
        return limit
    if isinstance(value, int | float):
        return min(value, limit)
    return [[epoch, min(size, limit)] for epoch, size in value]


def run_folder(resume: str | None, fresh: str) -> str:
    """The folder of a run: a resumed run goes on in its own, ``<run>/checkpoints/last.pth`` → ``<run>``; a checkpoint that lies
    elsewhere, or nowhere, or that another program wrote, says nothing of a folder."""
    own = run_folder_of(Path(resume)) if resume is not None else None
    return fresh if own is None else str(own)
