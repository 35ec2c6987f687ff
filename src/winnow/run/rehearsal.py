"""What would go wrong when a later stage's turn comes, found before the first is trained."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from winnow.checkpoints.initial import StageWeights, require_allowed
from winnow.checkpoints.state_dicts import LoadReport, compared
from winnow.config.plain import naming_stage
from winnow.config.schema import StageSettings
from winnow.engine.loop import Fit
from winnow.engine.memory import release_memory
from winnow.engine.ranks import Ranks
from winnow.run.build import build
from winnow.run.plan import RunPlan
from winnow.tracking.null_tracker import NullTracker

logger = logging.getLogger(__name__)


def rehearse(plans: Sequence[RunPlan]) -> None:
    """Build the parts of each stage, one after the other, and hold what it takes over against the model before it.

    Raises the WinnowError that the stage itself would have raised, perhaps after a night.
    """
    logger.info("checking the stages %s: data, model and what is handed over", ", ".join(plan.name for plan in plans))
    models: dict[str, dict[str, Tensor]] = {}
    for plan in plans:
        with naming_stage(plan.name), only_errors():
            models[plan.name] = model_of(build_alone(plan))
        named = StageWeights.read(plan.settings.training.init_from)
        if named is None or named.stage not in models or named.stage == plan.name:
            continue
        with naming_stage(plan.name):
            report = handed_over_report(models[plan.name], models[named.stage], named, plan.settings.stage)
        logger.info(
            "%s will take over from %s: %d of its %d parameters", plan.name, named.stage, report.matched,
            len(models[plan.name]),
        )  # fmt: skip
    release_memory()  # once for all: looking for cycles takes longer than building small parts


def handed_over_report(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], named: StageWeights, stage: StageSettings
) -> LoadReport:
    """Return how the model ``given`` of an earlier stage fits ``own``. Raises WeightsError where they differ beyond
    what ``stage`` allows."""
    report = compared(own, given, f"{named.stage}:{named.which} for {stage.name}")
    if stage.init_allow_missing is not None:
        require_allowed(report, stage.init_allow_missing)
    return report


def build_alone(plan: RunPlan) -> Fit:
    """Build the parts of a run as its rank 0 does; of many ranks the others are not there."""
    size = plan.settings.training.num_ranks or 1
    return build(plan, NullTracker(plan.folder), Ranks(0, size, 0, size))


def model_of(run: Fit) -> dict[str, Tensor]:
    """Return the entries of the model as tensors without values."""
    return {name: value.to("meta") for name, value in run.task.model.state_dict().items()}


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """Silence what winnow logs below errors inside: a stage that is only tried will log it when its turn comes."""
    winnow = logging.getLogger("winnow")
    before = winnow.level
    winnow.setLevel(logging.ERROR)
    try:
        yield
    finally:
        winnow.setLevel(before)
