"""What would go wrong when a later stage's turn comes, found before the first is trained."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from winnow.checkpoints.initial import StageWeights, require_allowed
from winnow.checkpoints.state_dicts import LoadReport, compared
from winnow.config.compose import Stage
from winnow.config.plain import said_of
from winnow.config.schema import StageSettings
from winnow.engine.loop import Fit
from winnow.engine.memory import release_memory
from winnow.engine.ranks import Ranks
from winnow.engine.seeding import choose_seed
from winnow.run.build import build
from winnow.tracking.null_tracker import NullTracker

logger = logging.getLogger(__name__)


def rehearse(stages: Sequence[Stage], folder: Path) -> None:
    """Build the parts of each stage, one after the other, and hold what it takes over against the model before it.

    Raises the WinnowError that the stage itself would have raised, perhaps after a night.
    """
    logger.info(
        "checking the stages %s: data, model and what is handed over", ", ".join(stage.name for stage in stages)
    )
    models: dict[str, dict[str, Tensor]] = {}
    for stage in stages:
        with said_of(stage.name), only_errors():
            models[stage.name] = model_of(built_alone(stage, folder / stage.name))
        settings = stage.settings()
        named = StageWeights.read(settings.training.init_from)
        if named is None or named.stage not in models or named.stage == stage.name:
            continue
        with said_of(stage.name):
            report = handed_over_report(models[stage.name], models[named.stage], named, settings.stage)
        logger.info(
            "%s will take over from %s: %d of its %d parameters", stage.name, named.stage, report.matched,
            len(models[stage.name]),
        )  # fmt: skip
    release_memory()  # once for all: looking for cycles takes longer than building small parts


def handed_over_report(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], named: StageWeights, stage: StageSettings
) -> LoadReport:
    """How the model ``given`` of an earlier stage fits ``own``. WeightsError where they differ beyond what ``stage`` allows."""
    report = compared(own, given, f"{named.stage}:{named.which} for {stage.name}")
    if stage.init_allow_missing is not None:
        require_allowed(report, stage.init_allow_missing)
    return report


def built_alone(stage: Stage, folder: Path) -> Fit:
    """The parts of ``stage`` as its rank 0 builds them; of many ranks the others are not there."""
    settings = stage.settings()
    size = settings.training.num_ranks or 1
    seed = choose_seed(settings.training.seed)
    ranks = Ranks(0, size, 0, size)
    return build(stage.config, settings, seed, folder, NullTracker(folder), stage.choices, ranks)


def model_of(run: Fit) -> dict[str, Tensor]:
    """The entries of the model as tensors without values."""
    return {name: value.to("meta") for name, value in run.task.model.state_dict().items()}


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """The log of a stage belongs to its own turn."""
    winnow = logging.getLogger("winnow")
    before = winnow.level
    winnow.setLevel(logging.ERROR)
    try:
        yield
    finally:
        winnow.setLevel(before)
