"""Which stages a command asks for: each with the config that ``stage=<name>`` alone composes, checked before any is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from winnow.build import checked_evaluation
from winnow.composed import Config, group_choices, plain_config, said_of, with_stage, without
from winnow.engine.handover import StageWeights, initial_weights
from winnow.errors import ConfigError
from winnow.folder_names import PIPELINE_RECORD
from winnow.instantiation import check_node
from winnow.run_config import require_one_start, resumed_config
from winnow.run_settings import SINGLE, RunSettings, StageSettings
from winnow.settings import build_settings
from winnow.tracked import check_tracking

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One run of a pipeline: its resolved config, and config group → choice."""

    name: str
    config: Config
    choices: dict[str, str]

    def settings(self) -> RunSettings:
        return build_settings(RunSettings, self.config, "")


def asked_stages(cfg: DictConfig, overrides: list[str], folder: Path) -> list[Stage]:
    """The stages that the composed ``cfg`` asks for in the run folder ``folder``, in order; none for a single run.

    A command without ``stage=`` that resumes asks for those that ``folder`` holds, or for the one whose folder or checkpoint
    ``training.resume`` names. A stage that has begun, or that only the folder knows of, follows the config it began with,
    single values of the command line on top; its ``training.resume`` is ``auto``, or a checkpoint. Raises ConfigError.
    """
    composed = plain_config(cfg, may_lack=True)
    resume = composed["training"]["resume"]
    recorded = read_record(folder) if resume is not None else []
    if composed["stage"]["stages"] is not None:
        build_settings(StageSettings, composed["stage"], "stage")
        stages = [compose_stage(name, cfg, overrides, resume is not None) for name in composed["stage"]["stages"]]
    elif composed["stage"]["name"] != SINGLE:
        stages = [Stage(composed["stage"]["name"], plain_config(cfg, resume is not None), choices_of_job())]
    else:
        stages = [replace(stage, config={**stage.config, "tracking": composed["tracking"]}) for stage in recorded]
    require_unlike(stages)
    if resume is None or not stages:
        return stages
    require_one_start(composed)
    is_given = composed["stage"]["name"] != SINGLE
    began = {s.name: s for s in recorded if not is_given or (folder / s.name / "checkpoints").exists()}
    return [
        as_begun(began.get(stage.name), stage, overrides, resume_of_stage)
        for stage, resume_of_stage in resumed(stages, resume, folder, composed["stage"]["stages"] is not None)
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


def compose_stage(name: str, cfg: DictConfig, overrides: Sequence[str], may_lack: bool) -> Stage:
    """What this very command line composes with ``stage=name``. ``cfg`` is the job's own config, whose resolved times stay."""
    loader = GlobalHydra.instance().config_loader()
    try:
        config = loader.load_sweep_config(hydra_of_job(), with_stage(overrides, name))
    except HydraException as error:
        raise ConfigError(f"stage={name} can't be composed: {error}") from error
    choices = group_choices(config)
    with open_dict(config):
        del config["hydra"]
    OmegaConf.copy_cache(from_config=cfg, to_config=config)
    with said_of(name):
        return Stage(PurePosixPath(name).name, plain_config(config, may_lack), choices)


def names_of(stages: Sequence[Stage]) -> str:
    return ", ".join(stage.name for stage in stages)


def choices_of_job() -> dict[str, str]:
    return group_choices(hydra_of_job())


def hydra_of_job() -> DictConfig:
    """The ``hydra`` node of the job that runs."""
    config = HydraConfig.instance().cfg
    assert isinstance(config, DictConfig)
    return config


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
    with said_of(composed.name):
        if record is None:
            config = plain_config(OmegaConf.create(composed.config))
        else:
            checkpoint = {"config": record.config, "metadata": {"choices": record.choices}}
            config = resumed_config(checkpoint, composed.config, own_overrides(overrides))
    config = {**config, "training": {**config["training"], "resume": resume}}
    return replace(record or composed, config=config)


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


def check_stages(stages: Sequence[Stage], folder: Path) -> None:
    """ConfigError where a stage would be refused when its turn comes: settings, nodes, or where its weights should come from."""
    for index, stage in enumerate(stages):
        with said_of(stage.name):
            stage.settings()
            checked_evaluation(stage.config)
            check_node(stage.config, "data", ["loading"])
            check_tracking(stage.config)
            _check_start(
                stage, [other.name for other in stages[:index]], [other.name for other in stages[index:]], folder
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


def write_record(stages: Sequence[Stage], folder: Path) -> None:
    """``pipeline.yaml``: what each stage began with, for whoever resumes; stages of earlier commands stay."""
    known = {stage.name: stage for stage in read_record(folder)} | {stage.name: stage for stage in stages}
    content = {"stages": [{"name": s.name, "choices": s.choices, "config": s.config} for s in known.values()]}
    temporary = folder / f".{PIPELINE_RECORD}.tmp"
    temporary.write_text(yaml.safe_dump(content, sort_keys=False))
    temporary.replace(folder / PIPELINE_RECORD)


def read_record(folder: Path) -> list[Stage]:
    """What ``write_record`` left; nothing where ``folder`` holds no stages. ConfigError for a damaged file."""
    path = folder / PIPELINE_RECORD
    if not path.is_file():
        return []
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        return [Stage(entry["name"], entry["config"], entry["choices"]) for entry in content["stages"]]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
