"""Which stages a command asks for: each with the config that ``stage=<name>`` alone composes, checked before any is trained."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from omegaconf import OmegaConf

import winnow.families
from winnow.builders import family_of
from winnow.checkpoints.initial import StageWeights, initial_weights
from winnow.config.compose import Composed, Stage
from winnow.config.instantiate import check_node, target_of, trusted
from winnow.config.moved import require_todays_choices
from winnow.config.plain import Config, plain_config, said_of, without
from winnow.config.recorded import resumed_config
from winnow.config.schema import SINGLE, StageSettings
from winnow.errors import ConfigError
from winnow.run.build import checked_evaluation
from winnow.run.pipeline_record import read_record
from winnow.run.result import is_concluded
from winnow.run.resume import require_one_start
from winnow.run.tracker import check_tracking
from winnow.run_folder import require_unused
from winnow.settings import build_settings
from winnow.sweep.current import current_trial

logger = logging.getLogger(__name__)

FAMILIES = [module.name for module in pkgutil.iter_modules(winnow.families.__path__) if module.ispkg]
"""The families of winnow; a folder of conf/stage that is named like one holds its stages."""


def asked_stages(command: Composed, compose: Callable[[str], Stage]) -> list[Stage]:
    """The stages that ``command`` asks for in its run folder, in order; none for a single run. ``compose`` gives what it
    composes with another ``stage=``; like its own config that may lack values.

    A command without ``stage=`` that resumes asks for those that the folder holds, or for the one whose folder or checkpoint
    ``training.resume`` names. A stage that has begun, or that only the folder knows of, follows the config it began with,
    single values of the command line on top; its ``training.resume`` is ``auto``, or a checkpoint. Raises ConfigError.
    """
    config, folder = command.config, command.run_folder
    resume, asked = config["training"]["resume"], config["stage"]
    recorded = read_record(folder) if resume is not None else []
    if not recorded and current_trial() is None:
        require_todays_choices(command.overrides, command.choices)
    if asked["stages"] is not None:
        build_settings(StageSettings, asked, "stage")
        stages = [compose(name) for name in asked["stages"]]
    elif asked["name"] != SINGLE:
        stages = [Stage(asked["name"], config, command.choices)]
    else:
        stages = [replace(stage, config={**stage.config, "tracking": config["tracking"]}) for stage in recorded]
    require_unlike(stages)
    if resume is None or not stages:
        return [replace(stage, config=_complete(stage)) for stage in stages]
    require_one_start(config)
    began = {s.name: s for s in recorded if asked["name"] == SINGLE or (folder / s.name / "checkpoints").exists()}
    return [
        as_begun(began.get(stage.name), stage, command.overrides, resume_of_stage)
        for stage, resume_of_stage in resumed(stages, resume, folder, asked["stages"] is not None)
    ]


def resumed(stages: list[Stage], resume: str, folder: Path, is_pipeline: bool) -> list[tuple[Stage, str]]:
    """The stages that ``training.resume`` means, each with its own: all of ``folder``, or one. ConfigError for anything else."""
    path = Path(resume).resolve()
    if resume == "auto" or path == folder.resolve():
        return [(stage, "auto") for stage in stages]
    if is_pipeline:
        raise ConfigError(
            f"training.resume={resume!r}: a pipeline goes on by its own run folder, training.resume={folder}; one of its stages "
            "alone by the stage's folder or checkpoint, and without a stage=… that names them all"
        )
    for stage in stages:
        own = folder.resolve() / stage.name
        if path == own or path.parent == own / "checkpoints":
            return [(stage, "auto" if path == own else resume)]
    if len(stages) == 1:
        return [(stages[0], resume)]
    raise ConfigError(f"training.resume={resume!r} does not lie in {folder}, which holds the stages {names_of(stages)}")


def names_of(stages: Sequence[Stage]) -> str:
    return ", ".join(stage.name for stage in stages)


def require_unlike(stages: Sequence[Stage]) -> None:
    """ConfigError for a stage that is a pipeline or no stage, that is not named as its file is, or that comes twice."""
    names = [stage.name for stage in stages]
    for stage in stages:
        node = stage.config["stage"]
        choice = stage.choices.get("stage", stage.name)
        if node["name"] != PurePosixPath(choice).name or stage.name == SINGLE:
            raise ConfigError(
                f"stage={choice}: its file sets stage.name={node['name']!r}, and it must be the file's own name and not "
                f"{SINGLE!r}: the stage's folder and others' init_from are called so"
            )
        if node["stages"] is not None:
            raise ConfigError(
                f"stage.stages names {stage.name!r}, which is a pipeline itself; name its stages {node['stages']}"
            )
        if names.count(stage.name) > 1:
            raise ConfigError(f"stage.stages holds two stages named {stage.name!r}")


def as_begun(record: Stage | None, composed: Stage, overrides: list[str], resume: str) -> Stage:
    """``composed``, or where the stage was recorded, what it was then, with the command line's single values on top."""
    if record is None:
        config = _complete(composed)
    else:
        checkpoint = {"config": record.config, "metadata": {"choices": record.choices}}
        with said_of(composed.name):
            config = resumed_config(checkpoint, composed.config, own_overrides(overrides))
    config = {**config, "training": {**config["training"], "resume": resume}}
    return replace(record or composed, config=config)


def _complete(stage: Stage) -> Config:
    """Its config; ConfigError where a value of it was never given."""
    with said_of(stage.name):
        return plain_config(OmegaConf.create(stage.config))


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """Those of the command line that a stage goes on with: not what is said of the pipeline."""
    return without(overrides, "stage", "training.resume", "tracking.parent_run_id")


def handed_over(stages: Sequence[Stage]) -> list[Stage]:
    """The same, but that ``training.init_from`` of the command line stays away from the stages that take over from an earlier
    one: it says where the pipeline begins."""
    return [_taking_over(stage, [other.name for other in stages[:index]]) for index, stage in enumerate(stages)]


def _taking_over(stage: Stage, earlier: list[str]) -> Stage:
    own, given = stage.config["stage"]["init_from"], stage.config["training"]["init_from"]
    named = StageWeights.read(own)
    if given == own or named is None or named.stage not in earlier:
        return stage
    logger.info("stage=%s takes over from %s; training.init_from=%s is for the stages before", stage.name, own, given)
    return replace(stage, config={**stage.config, "training": {**stage.config["training"], "init_from": own}})


def unfinished_stages(stages: Sequence[Stage], folder: Path) -> list[Stage]:
    """Those that are still to be trained in ``folder``, all of ``stages`` checked; of a finished pipeline the last, which says
    so, or goes on where it was given more epochs. Raises ConfigError."""
    if (folder / "checkpoints").exists():
        raise ConfigError(f"{folder} already holds a single run; choose another hydra.run.dir for stages")
    for stage in stages:
        if stage.config["training"]["resume"] is None:
            require_unused(folder / stage.name)
    check_stages(stages, folder)
    finished = [stage.name for stage in stages if is_concluded(folder / stage.name)]
    if finished:
        logger.info("finished already: %s", ", ".join(finished))
    return [stage for stage in stages if stage.name not in finished] or [stages[-1]]


def check_stages(stages: Sequence[Stage], folder: Path) -> None:
    """ConfigError where a stage would be refused when its turn comes: settings, nodes, or where its weights should come from."""
    for index, stage in enumerate(stages):
        with said_of(stage.name):
            require_stage_of_family(stage)
            stage.settings()
            checked_evaluation(stage.config)
            check_node(stage.config, "data", ["loading"])
            check_tracking(stage.config)
            _check_start(
                stage, [other.name for other in stages[:index]], [other.name for other in stages[index:]], folder
            )


def require_stage_of_family(stage: Stage) -> None:
    """Raise ConfigError where ``stage`` lies in the folder of a family, as ``stage=ink/dense``, and the model is of another."""
    choice = stage.choices.get("stage", "")
    folder = PurePosixPath(choice).parts[0] if "/" in choice else None
    family = family_of(target_of(stage.config["model"], "model", trusted(stage.config)))
    if family is not None and folder in FAMILIES and folder != family:
        raise ConfigError(
            f"stage={choice} is for models of the family {folder}, but model={stage.choices.get('model')} is of {family}; choose "
            "another model=… or stage=…"
        )


def _check_start(stage: Stage, earlier: list[str], later: list[str], folder: Path) -> None:
    init_from = stage.config["training"]["init_from"]
    has_begun = (folder / stage.name / "checkpoints").exists()
    if init_from is None or has_begun:
        return
    named = StageWeights.read(init_from)
    if named is not None and named.stage in later:
        allowed = ", ".join(f"{name}:best" for name in earlier) or "none, it is the first"
        raise ConfigError(
            f"init_from={init_from!r}: {named.stage} is not trained before {stage.name}; stages before it: {allowed}"
        )
    if named is None or named.stage not in earlier:
        initial_weights(init_from, folder)
