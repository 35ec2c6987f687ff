"""Weights that a run starts from, as a preflight loads them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.initial import StageWeights, initial_weights, load_initial_weights
from winnow.checkpoints.state_dicts import mark_loaded
from winnow.config.plain import naming_stage
from winnow.engine.loop import Fit
from winnow.run.plan import RunPlan
from winnow.run.rehearsal import handed_over_report, model_of

logger = logging.getLogger(__name__)

Models = dict[str, dict[str, Tensor]]
"""Stage → its model's entries, without values."""


def take_weights(run: Fit, plan: RunPlan, earlier: Mapping[str, dict[str, Tensor]]) -> None:
    """Load what the run starts from; of an ``earlier`` stage that is not trained yet only the names and shapes
    are compared. Raises the WinnowError that the training would raise."""
    init_from, stage = plan.settings.training.init_from, plan.settings.stage
    if init_from is None:
        return
    named = StageWeights.read(init_from)
    if named is not None and named.stage in earlier and not named.path(plan.folder.parent).is_file():
        with naming_stage(stage.name):
            report = handed_over_report(model_of(run), earlier[named.stage], named, stage)
        logger.warning(
            "%s is not trained yet: its names and shapes were compared, its weights are random here", init_from
        )
        kept = {*report.missing, *report.reshaped}
        mark_loaded(run.task.model, [name for name in model_of(run) if name not in kept], init_from)
        return
    weights = initial_weights(init_from, None if stage.is_alone else plan.folder.parent)
    source, head = plan.settings.training.frozen_source, ClassHead.of(run.task)
    load_initial_weights(run.task.model, weights, stage.init_allow_missing, source, head)
