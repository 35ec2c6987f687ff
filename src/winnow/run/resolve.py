"""Resolving a command, once: the plans of the runs it asks for, final and checked, before any of them begins."""

from __future__ import annotations

import contextlib
import logging
import pkgutil
from collections.abc import Sequence
from pathlib import Path

import winnow.families
from winnow.builders import family_of
from winnow.checkpoints.initial import StageWeights, initial_weights
from winnow.config.compose import Command
from winnow.config.flat import flat
from winnow.config.instantiate import check_node, require_builders, target_of, trusted
from winnow.config.moved import require_todays_choices
from winnow.config.plain import naming_stage
from winnow.config.recorded import resumed_config
from winnow.config.schema import SINGLE
from winnow.errors import ConfigError
from winnow.masking import is_masked
from winnow.reading import naming
from winnow.run.build import checked_evaluation
from winnow.run.pipeline_record import RecordedStage, read_record
from winnow.run.plan import RunPlan
from winnow.run.result import is_concluded
from winnow.run.resume import complete, find_checkpoint, require_one_start
from winnow.run.stages import asked_stages, name_of, own_overrides, resumed_stages
from winnow.run.tracker import check_tracking
from winnow.run_folder import require_unused
from winnow.sweep.current import current_trial

logger = logging.getLogger(__name__)

FAMILIES = [module.name for module in pkgutil.iter_modules(winnow.families.__path__) if module.ispkg]
"""The families of winnow; a folder of conf/stage that is named like one holds its stages."""


def resolve(command: Command) -> list[RunPlan]:
    """Return the runs that ``command`` asks for, in order: a single one in the run folder itself, or each stage of a pipeline
    in a folder of its own below it, finished ones too. Reads checkpoints and no data.

    A run that has begun follows the config it began with, single values of the command line on top. Raises ConfigError and
    CheckpointError for what would be refused when its turn comes.
    """
    recorded = read_record(command.run_folder) if command.config["training"]["resume"] is not None else []
    if not recorded and current_trial() is None:
        require_todays_choices(command.overrides, command.choices)
    stages = asked_stages(command, recorded)
    plans = resolve_stages(command, stages, recorded) if stages else [resolve_single(command)]
    check_plans(plans, command.run_folder)
    if command.config["training"]["resume"] is None:
        require_secrets(plans)
    return plans


def require_secrets(plans: Sequence[RunPlan]) -> None:
    """Raise ConfigError where runs that begin were given an address as it is recorded, without its secret."""
    for plan in plans:
        lost = [f"tracking.{key}={value}" for key, value in flat(plan.config["tracking"]).items() if is_masked(value)]
        if lost:
            raise ConfigError(
                f"{lost[0]} stands without its secret, as it is recorded; give it whole, or leave the secret out and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )


def resolve_single(command: Command) -> RunPlan:
    """Return the plan of the one run of ``command``. Raises ConfigError, CheckpointError."""
    config, folder = command.config, command.run_folder
    require_one_start(config)
    found = find_checkpoint(config["training"]["resume"], folder)
    current = current_trial()
    parent = current.study_folder if current is not None else None
    if found is None:
        return RunPlan.of(complete(config), folder, command.choices, None, parent, command.looked_up)
    with naming(found.path, "going on from "):
        resolved, choices = found.resolve(config, command.overrides), found.choices(command.choices)
        return RunPlan.of(resolved, folder, choices, found.path, parent, command.looked_up)


def resolve_stages(command: Command, stages: Sequence[Command], recorded: Sequence[RecordedStage]) -> list[RunPlan]:
    """Return the plan of each of ``stages``. One that has begun, or that only the folder knows of, follows its checkpoint, or
    else its record. Raises ConfigError, CheckpointError."""
    config, folder = command.config, command.run_folder
    resume = config["training"]["resume"]
    resumes = {name_of(stage): resume for stage in stages}
    if resume is not None:
        require_one_start(config)
        resumes = resumed_stages(list(resumes), resume, folder, is_pipeline=config["stage"]["stages"] is not None)
        stages = [stage for stage in stages if name_of(stage) in resumes]
    only_recorded = config["stage"]["name"] == SINGLE
    began = {r.name: r for r in recorded if only_recorded or (folder / r.name / "checkpoints").exists()}
    finished = [name for name in resumes if resume is not None and is_concluded(folder / name)]
    plans: list[RunPlan] = []
    for stage in stages:
        name = name_of(stage)
        # Of a finished pipeline the last one may go on, if it was given more epochs.
        is_left = name in finished and not (len(finished) == len(stages) and stage is stages[-1])
        with naming_stage(name):
            plan = resolve_stage(stage, began.get(name), None if is_left else resumes[name], folder / name, command)
        plans.append(taking_over(plan, [other.name for other in plans]))
    for plan in plans if resume is None else ():
        require_unused(plan.folder)
    return plans


def resolve_stage(
    stage: Command, record: RecordedStage | None, resume: str | None, folder: Path, command: Command
) -> RunPlan:
    """Return the plan of ``stage``, which goes on as ``resume`` says. Raises ConfigError, CheckpointError."""
    overrides = own_overrides(command.overrides)
    found = find_checkpoint(resume, folder) if resume is not None else None
    choices = stage.choices if record is None else record.choices
    if found is not None:
        with naming(found.path, "going on from "):
            config, choices = found.resolve(stage.config, overrides), found.choices(choices)
            return RunPlan.of(config, folder, choices, found.path, command.run_folder, stage.looked_up)
    if record is not None:
        config = resumed_config({"config": record.config, "metadata": {"choices": choices}}, stage.config, overrides)
    else:
        config = complete(stage.config)
    return RunPlan.of(config, folder, choices, None, command.run_folder, stage.looked_up)


def taking_over(plan: RunPlan, earlier: Sequence[str]) -> RunPlan:
    """Return ``plan`` with its stage's own ``init_from`` where that names one of the ``earlier`` stages: training.init_from of
    the command line says where the pipeline begins."""
    own, given = plan.settings.stage.init_from, plan.settings.training.init_from
    named = StageWeights.read(own)
    if given == own or named is None or named.stage not in earlier:
        return plan
    logger.info("stage=%s takes over from %s; training.init_from=%s is for the stages before", plan.name, own, given)
    return plan.with_values("training", init_from=own)


def unfinished(plans: Sequence[RunPlan]) -> list[RunPlan]:
    """Return the plans that are still to be trained; of a finished pipeline the last, which says so or goes on where it was
    given more epochs."""
    finished = [plan.name for plan in plans if is_concluded(plan.folder)]
    if finished:
        logger.info("finished already: %s", ", ".join(finished))
    return [plan for plan in plans if plan.name not in finished] or [plans[-1]]


def check_plans(plans: Sequence[RunPlan], run_folder: Path) -> None:
    """Raise ConfigError where a run would be refused when its turn comes: nodes, or where its weights should come from."""
    is_single = plans[0].settings.stage.is_alone
    if not is_single and (run_folder / "checkpoints").exists():
        raise ConfigError(f"{run_folder} already holds a single run; choose another hydra.run.dir for stages")
    names = [plan.name for plan in plans]
    for index, plan in enumerate(plans):
        going_on = contextlib.nullcontext() if plan.checkpoint is None else naming(plan.checkpoint, "going on from ")
        with contextlib.nullcontext() if is_single else naming_stage(plan.name), going_on:
            for key, node in plan.config.items():
                require_builders(node, key, trusted(plan.config))
            require_stage_of_family(plan)
            checked_evaluation(plan.config)
            check_node(plan.config, "data", ["loading"])
            check_tracking(plan.config)
            check_start(plan, names[:index], names[index:], None if is_single else run_folder)


def require_stage_of_family(plan: RunPlan) -> None:
    """Raise ConfigError where a stage lies in the folder of a family, as ``stage=ink/dense``, and the model is of another."""
    choice = plan.choices.get("stage", "")
    folder = choice.partition("/")[0] if "/" in choice else None
    family = family_of(target_of(plan.config["model"], "model", trusted(plan.config)))
    if family is not None and folder in FAMILIES and folder != family:
        raise ConfigError(
            f"stage={choice} is for models of the family {folder}, but model={plan.choices.get('model')} is of {family}; choose "
            "another model=… or stage=…"
        )


def check_start(plan: RunPlan, earlier: Sequence[str], later: Sequence[str], run_folder: Path | None) -> None:
    """Raise ConfigError where the weights that ``plan`` starts from are not there, and no ``earlier`` stage will leave them.
    ``run_folder`` holds a folder per stage; None for a single run."""
    init_from = plan.settings.training.init_from
    if init_from is None or plan.checkpoint is not None or (plan.folder / "checkpoints").exists():
        return
    named = StageWeights.read(init_from)
    if named is not None and run_folder is not None and named.stage in later:
        allowed = ", ".join(f"{name}:best" for name in earlier) or "none, it is the first"
        raise ConfigError(
            f"init_from={init_from!r}: {named.stage} is not trained before {plan.name}; stages before it: {allowed}"
        )
    if named is None or named.stage not in earlier:
        initial_weights(init_from, run_folder)
