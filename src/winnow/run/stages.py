"""Which stages a command asks for, and which of them its ``training.resume`` means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from winnow.config.compose import Command
from winnow.config.plain import without
from winnow.config.schema import SINGLE, StageSettings
from winnow.errors import ConfigError
from winnow.run.pipeline_record import RecordedStage
from winnow.settings import build_settings


def asked_stages(command: Command, recorded: Sequence[RecordedStage]) -> list[Command]:
    """Return the stages that ``command`` asks for, in order, each as ``stage=<name>`` alone composes it; none for a single run.

    A command without ``stage=`` in a folder that holds stages asks for those that are ``recorded`` there, tracked as the
    command says. Raises ConfigError.
    """
    asked = command.config["stage"]
    if asked["stages"] is not None:
        build_settings(StageSettings, asked, "stage")
        stages = [command.compose_stage(name) for name in asked["stages"]]
    elif asked["name"] != SINGLE:
        stages = [command]
    else:
        said = {key: command.config[key] for key in ("tracking", "trusted_targets")}
        stages = [replace(command, config={**record.config, **said}, choices=record.choices) for record in recorded]
    require_proper(stages)
    return stages


def name_of(stage: Command) -> str:
    """Return the name of the composed ``stage``."""
    return str(stage.config["stage"]["name"])


def require_proper(stages: Sequence[Command]) -> None:
    """Raise ConfigError for a stage that is a pipeline or no stage, that is not named as its file is, or that comes twice."""
    names = [name_of(stage) for stage in stages]
    for stage, name in zip(stages, names, strict=True):
        choice = stage.choices.get("stage", name)
        if name != PurePosixPath(choice).name or name == SINGLE:
            raise ConfigError(
                f"stage={choice}: its file sets stage.name={name!r}, and it must be the file's own name and not "
                f"{SINGLE!r}: the stage's folder and others' init_from are called so"
            )
        node = stage.config["stage"]
        if node["stages"] is not None:
            raise ConfigError(
                f"stage.stages names {name!r}, which is a pipeline itself; name its stages {node['stages']}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"stage.stages holds two stages named {name!r}")


def resumed_stages(names: Sequence[str], resume: str, folder: Path, *, is_pipeline: bool) -> dict[str, str]:
    """Return the stages that ``training.resume`` means, all of ``folder`` or one, each with its own: ``auto`` or a checkpoint.
    Raises ConfigError for anything else."""
    path = Path(resume).resolve()
    if resume == "auto" or path == folder.resolve():
        return dict.fromkeys(names, "auto")
    if is_pipeline:
        raise ConfigError(
            f"training.resume={resume!r}: a pipeline goes on by its own run folder, training.resume={folder}; one of its stages "
            "alone by the stage's folder or checkpoint, and without a stage=… that names them all"
        )
    for name in names:
        own = folder.resolve() / name
        if path == own or path.parent == own / "checkpoints":
            return {name: "auto" if path == own else resume}
    if len(names) == 1:
        return {names[0]: resume}
    raise ConfigError(f"training.resume={resume!r} does not lie in {folder}, which holds the stages {', '.join(names)}")


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """Return those of the command line that a stage goes on with: not what is said of the pipeline."""
    return without(overrides, "stage", "training.resume", "tracking.parent_run_id")
