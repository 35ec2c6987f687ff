"""``pipeline.yaml``: what each stage of a run folder began with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from winnow.config.compose import Stage
from winnow.config.moved import with_moved_choices, with_moved_targets
from winnow.errors import ConfigError
from winnow.run_folder import PIPELINE_RECORD


def write_record(stages: Sequence[Stage], folder: Path) -> None:
    """``pipeline.yaml``: what each stage began with, for whoever resumes; stages of earlier commands stay."""
    known = {stage.name: stage for stage in read_record(folder)} | {stage.name: stage for stage in stages}
    content = {"stages": [{"name": s.name, "choices": s.choices, "config": s.config} for s in known.values()]}
    temporary = folder / f".{PIPELINE_RECORD}.tmp"
    with temporary.open("w") as file:
        yaml.safe_dump(content, file, sort_keys=False)
        file.flush()
        os.fsync(file.fileno())  # without it no stage can be resumed after a power cut
    temporary.replace(folder / PIPELINE_RECORD)


def read_record(folder: Path) -> list[Stage]:
    """What ``write_record`` left; nothing where ``folder`` holds no stages. ConfigError for a damaged file."""
    path = folder / PIPELINE_RECORD
    if not path.is_file():
        return []
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        return [
            Stage(
                entry["name"],
                with_moved_targets(entry["config"]),
                with_moved_choices(entry["choices"], entry["config"]),
            )
            for entry in content["stages"]
        ]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
