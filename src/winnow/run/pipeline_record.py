"""``pipeline.yaml``: what each stage of a run folder began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from winnow.config.moved import with_moved_choices, with_moved_targets
from winnow.config.plain import Config
from winnow.errors import ConfigError
from winnow.reading import UnreadableError, as_record, read_yaml
from winnow.run.plan import RunPlan
from winnow.run_folder import PIPELINE_RECORD, write_whole


@dataclass(frozen=True)
class RecordedStage:
    """What a stage began with."""

    name: str
    config: Config
    choices: dict[str, str]


def write_record(plans: Sequence[RunPlan], folder: Path) -> None:
    """Write down what each stage begins with, for whoever resumes; stages of earlier commands stay."""
    began = [RecordedStage(plan.name, plan.recorded, plan.choices) for plan in plans]
    known = {stage.name: stage for stage in [*read_record(folder), *began]}
    content = {"stages": [{"name": s.name, "choices": s.choices, "config": s.config} for s in known.values()]}
    write_whole(folder / PIPELINE_RECORD, yaml.safe_dump(content, sort_keys=False))


def read_record(folder: Path) -> list[RecordedStage]:
    """Return what ``write_record`` left; nothing where ``folder`` holds no stages. Raises ConfigError for a damaged file."""
    path = folder / PIPELINE_RECORD
    if not path.is_file():
        return []
    content = read_yaml(path, "the record of a pipeline", ConfigError)
    try:
        stages = as_record(_Stages, content).stages
    except UnreadableError as error:
        raise ConfigError(
            f"{path} is damaged: it has no list of stages with name, config and choices ({error})"
        ) from error
    for stage in stages:
        own = stage.config.get("stage")
        if not isinstance(own, Mapping) or own.get("name") != stage.name or "stages" not in own:
            raise ConfigError(f"{path} is damaged: the config of {stage.name!r:.60} says stage={own!r:.60}")
    return [
        RecordedStage(s.name, with_moved_targets(s.config), with_moved_choices(s.choices, s.config)) for s in stages
    ]


@dataclass(frozen=True)
class _Stages:
    stages: list[RecordedStage]
