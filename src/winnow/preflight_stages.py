"""The runs that a command line stands for: one, or the stages of a pipeline, and what each will take over."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from winnow.composed import said_of, with_stage
from winnow.composing import Composed, compose_command_line
from winnow.engine.handover import StageWeights, initial_weights
from winnow.engine.loop import Fit
from winnow.engine.weights import load_initial_weights
from winnow.rehearsal import handed_over_report
from winnow.run_settings import SINGLE, RunSettings
from winnow.stages import (
    Stage,
    check_stages,
    handed_over,
    own_overrides,
    read_record,
    require_unlike,
)
from winnow.state_dicts import mark_loaded

logger = logging.getLogger(__name__)

Models = dict[str, dict[str, Tensor]]
"""Stage → its model's entries, without values."""


def stages_of(config_folder: Path, overrides: Sequence[str]) -> list[Composed]:
    """Each run as it is composed alone, in its own folder; a resumed pipeline's go on there or begin. Raises ConfigError."""
    asked = compose_command_line(config_folder, overrides)
    names, folder, is_resumed = asked.config["stage"]["stages"], asked.run_folder, asked.config["training"]["resume"]
    if names is None and asked.config["stage"]["name"] != SINGLE:
        return [replace(asked, run_folder=folder / asked.config["stage"]["name"])]
    if names is not None:
        composed = [compose_command_line(config_folder, with_stage(overrides, name)) for name in names]
        stages = [Stage(str(own.config["stage"]["name"]), own.config, own.choices) for own in composed]
    else:
        stages = read_record(folder) if is_resumed is not None else []
        if not stages:
            return [asked]
    require_unlike(stages)
    stages = handed_over(stages)
    if is_resumed is not None:
        stages = [
            replace(stage, config={**stage.config, "training": {**stage.config["training"], "resume": "auto"}})
            for stage in stages
        ]
    check_stages(stages, folder)
    own = own_overrides(asked.overrides)
    return [Composed(stage.config, folder / stage.name, stage.choices, own) for stage in stages]


def take_weights(run: Fit, settings: RunSettings, folder: Path, earlier: Mapping[str, dict[str, Tensor]]) -> None:
    """What the run in ``folder`` starts from, loaded; of an ``earlier`` stage that is not trained yet only the names and shapes
    are compared. Raises the WinnowError that the training would raise."""
    init_from, stage = settings.training.init_from, settings.stage
    if init_from is None:
        return
    named = StageWeights.read(init_from)
    if named is not None and named.stage in earlier and not named.path(folder.parent).is_file():
        with said_of(stage.name):
            report = handed_over_report(model_of(run), earlier[named.stage], named, stage)
        logger.warning(
            "%s is not trained yet: its names and shapes were compared, its weights are random here", init_from
        )
        kept = {*report.missing, *report.reshaped}
        mark_loaded(run.task.model, [name for name in model_of(run) if name not in kept], init_from)
        return
    weights = initial_weights(init_from, None if stage.is_alone else folder.parent)
    load_initial_weights(run.task.model, weights, stage.init_allow_missing)


def model_of(run: Fit) -> dict[str, Tensor]:
    """The model's entries as tensors without values."""
    return {name: value.to("meta") for name, value in run.task.model.state_dict().items()}
