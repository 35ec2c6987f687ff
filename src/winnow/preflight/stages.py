"""The runs that a command line stands for: one, or the stages of a pipeline, and what each will take over."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from torch import Tensor

from winnow.checkpoints.initial import StageWeights, initial_weights, load_initial_weights
from winnow.checkpoints.state_dicts import mark_loaded
from winnow.config.compose import Composed, Stage, compose_command_line
from winnow.config.plain import said_of, stage_beside, with_stage
from winnow.config.schema import RunSettings
from winnow.engine.loop import Fit
from winnow.run.rehearsal import handed_over_report, model_of
from winnow.run.stages import asked_stages, handed_over, own_overrides, unfinished_stages

logger = logging.getLogger(__name__)

Models = dict[str, dict[str, Tensor]]
"""Stage → its model's entries, without values."""


def stages_of(config_folder: Path, overrides: Sequence[str], added: Path | None) -> list[Composed]:
    """Each run that ``train.py`` would train, in its own folder, composed as there. Raises ConfigError."""
    asked = compose_command_line(config_folder, overrides, added)
    folder = asked.run_folder

    def with_another(name: str) -> Stage:
        choice = stage_beside(asked.choices["stage"], name)
        own = compose_command_line(config_folder, with_stage(overrides, choice), added)
        return Stage(PurePosixPath(name).name, own.config, own.choices)

    stages = asked_stages(asked, with_another)
    if not stages:
        return [asked]
    own = own_overrides(asked.overrides)
    return [
        Composed(stage.config, folder / stage.name, stage.choices, own)
        for stage in unfinished_stages(handed_over(stages), folder)
    ]


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
    load_initial_weights(run.task.model, weights, stage.init_allow_missing, settings.training.frozen_source)
