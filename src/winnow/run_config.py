"""The config that a run really follows: as composed, or, for a resumed run, as its checkpoint recorded it."""

from __future__ import annotations

import importlib.util
import logging
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from winnow.checkpoint_layouts import ForeignCheckpoint, read_foreign
from winnow.composed import Config, plain_config
from winnow.engine.checkpoint_file import read_checkpoint
from winnow.engine.checkpoints import CheckpointFolder
from winnow.engine.run_folder import require_unused
from winnow.engine.seal import is_of_winnow, is_sealed
from winnow.errors import CheckpointError, ConfigError
from winnow.flat_config import differences_by_name, flat

logger = logging.getLogger(__name__)

Found = tuple[Path, dict[str, Any]] | ForeignCheckpoint
"""A checkpoint to resume: where it lies and its content, or what another program's file holds."""


def config_of_run(composed: Config, folder: Path, overrides: list[str]) -> tuple[Config, Found | None]:
    """What a run in ``folder`` is to follow, and the checkpoint that it goes on from; ``composed`` by these command-line
    overrides may lack values. Raises ConfigError, CheckpointError."""
    require_one_start(composed)
    resume = composed["training"]["resume"]
    foreign = foreign_to_resume(resume)
    saved = checkpoint_to_resume(resume, folder) if foreign is None else None
    if saved is not None:
        return resumed_config(saved[1], composed, overrides), saved
    config = plain_config(OmegaConf.create(composed))
    if resume is None or foreign is not None:
        require_unused(folder)
    if foreign is not None:
        log_other_config(foreign, config)
    return config, foreign


def require_one_start(config: Config) -> None:
    """ConfigError where a command both resumes a run and starts from another's weights. A run that *began* from weights may
    be resumed: its recorded ``init_from`` is history then, as is its stage's; ``auto`` begins a run that is not there yet."""
    resume, init_from = config["training"]["resume"], config["training"]["init_from"]
    if resume not in (None, "auto") and init_from not in (None, config["stage"]["init_from"]):
        raise ConfigError(
            f"training.resume={resume!r} and training.init_from={init_from!r} contradict each other: resume goes on with a "
            "run, init_from starts another from its weights; set one to null"
        )


def foreign_to_resume(resume: str | None) -> ForeignCheckpoint | None:
    """The whole file that ``training.resume`` names where another program wrote it; None where winnow did, or for null and
    ``auto``. A checkpoint of winnow's that lost its end is winnow's still, where a whole one lies beside it. Raises
    CheckpointError for a file that is no checkpoint."""
    if resume is None or resume == "auto":
        return None
    path = Path(resume)
    if not path.is_file() or is_of_winnow(path):
        return None
    return read_foreign(path, "a checkpoint", CheckpointError)


def log_other_config(file: ForeignCheckpoint, config: Config) -> None:
    """Say how the config that a foreign ``file`` holds differs from the one that is followed: its own is never applied."""
    if not file.config:
        logger.warning("%s holds no config: the command line's is followed", file.path)
        return
    differences, unknown = differences_by_name(flat(file.config), flat(config))
    shown = [f"{key}: {old!r} in the file, {new!r} here" for key, old, new in differences]
    shown += [f"not a key here: {', '.join(sorted(unknown))}"] if unknown else []
    logger.warning(
        "the config of %s is not applied, the command line's is followed; %s%s",
        *(file.path, "they differ:" if shown else "they do not differ"),
        "".join(f"\n  {line}" for line in shown),
    )


def read_found(path: Path) -> Found:
    """A whole checkpoint, of winnow's or another program's, as rank 0 found it."""
    return (path, read_checkpoint(path)) if is_sealed(path) else read_foreign(path, "a checkpoint", CheckpointError)


def path_of(found: Found) -> Path:
    return found[0] if isinstance(found, tuple) else found.path


def checkpoint_to_resume(resume: str | None, folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that ``training.resume`` names: a file, a run folder (its newest whole one), ``auto`` (that of ``folder``,
    or None where the run has not saved yet), or None for null. A damaged file falls back to the newest whole one beside it,
    and says so."""
    if resume is None:
        return None
    path = folder if resume == "auto" else Path(resume)
    if resume == "auto" or path.is_dir():
        newest = CheckpointFolder(path / "checkpoints", save_interval=1, keep_last_n=1).newest()
        if newest is None and resume != "auto":
            raise CheckpointError(f"training.resume={resume!r} is a folder without a checkpoint of a run")
        return newest
    try:
        return path, read_checkpoint(path)
    except CheckpointError as error:
        beside = CheckpointFolder(path.parent, save_interval=1, keep_last_n=1)
        older = beside.newest() if path.is_file() and beside.is_ours(path) else None
        if older is None:
            raise
        logger.error("%s; going on from %s instead", error, older[0])
        return older


def resumed_config(checkpoint: Mapping[str, Any], composed: Config, overrides: list[str]) -> Config:
    """The config that ``checkpoint`` recorded with the command line's single values on top; where a run is tracked is taken
    from ``composed``.

    So the command that began a run also resumes it. Raises ConfigError for an override that chooses another group than then:
    what the old one held is in the checkpoint, and a mixture of the two would be neither; and for what can't change within a
    run.
    """
    recorded = checkpoint["config"]
    require_plain_values(recorded)
    require_own_packages(recorded["trusted_targets"], composed["trusted_targets"])
    # What these may say has grown since the first checkpoints.
    grown = {key: {**composed[key], **recorded[key]} for key in ("stage", "training")}
    config = OmegaConf.create({**recorded, **grown})
    if "_target_" not in config.evaluation:  # recorded when detection was all there was
        config.evaluation._target_ = "winnow.evaluation.boxes.box_evaluation"
    began = plain_config(config)
    choices = checkpoint["metadata"].get("choices", {})
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element().lstrip("+~")
        if key == "tracking":
            config.tracking = composed["tracking"]
        elif key in choices or _is_group(key, override, config, composed):
            if choices.get(key) != choice_text(override.value()):
                raise ConfigError(
                    f"{override.input_line}: the run began with {key}={choices.get(key)}, and a resumed run keeps its groups; "
                    "give single values, as training.max_epochs=20"
                )
        else:
            _apply(config, key, override)
    config.training.resume = None
    if config.training.seed is None:  # the command that began the run had one drawn
        config.training.seed = began["training"]["seed"]
    resumed = plain_config(config)
    for keys, reason in _FIXED.items():
        old, new = (_value(values, keys) for values in (began, resumed))
        if old != new:
            raise ConfigError(f"{'.'.join(keys)}={new!r}: the run began with {old!r}, and {reason}")
    return resumed


def require_plain_values(recorded: Mapping[str, Any]) -> None:
    """ConfigError for a recorded value that would be looked up anew, as ``${oc.env:TOKEN}``: runs record what it came to, and a
    file must not be able to read this machine's environment."""
    for key, value in flat(recorded).items():
        if "${" in str(value):
            raise ConfigError(
                f"the checkpoint's config holds {key}={value!r}, and no run records what is still to be looked up"
            )


def require_own_packages(recorded: Sequence[str], trusted: Sequence[str]) -> None:
    """ConfigError where a file asks to trust what this command does not, unless that is a project's own code: a file must not
    be able to name what Python and the installed packages can do."""
    for name in recorded:
        if name not in trusted and not _is_own_code(name.partition(".")[0]):
            raise ConfigError(
                f"the checkpoint's config trusts {name!r}, an installed package; if you want its `_target_`s to run, say "
                f"so: trusted_targets=[{name}]"
            )


def _is_own_code(package: str) -> bool:
    """Whether ``package`` is neither Python's, nor winnow's, nor installed. One that is not there at all can do no harm."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None:
        return package.isidentifier()
    if package in _NOT_OWN or spec.origin in ("built-in", "frozen"):
        return False
    paths = sysconfig.get_paths()
    python = [Path(paths[kind]).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    places = [Path(place).resolve() for place in (spec.origin, *(spec.submodule_search_locations or ())) if place]
    return not any(
        place.is_relative_to(folder) or {"site-packages", "dist-packages"} & set(place.parts)
        for place in places
        for folder in python
    )


def in_halves(config: Config) -> Config | None:
    """``config`` with half the batch and twice the accumulation, which is the same step; None where that is not wanted or not
    possible."""
    training = config["training"]
    if not training["oom_retry"] or training["batch_size"] % 2:
        return None
    halved = {"batch_size": training["batch_size"] // 2, "accumulate": 2 * training["accumulate"]}
    return {**config, "training": {**training, **halved}}


def choice_text(value: Any) -> str:
    """A group's choice as it is recorded: ``adamw``, or ``[a,b]`` for several files of one group."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _is_group(key: str, override: Override, config: DictConfig, composed: Config) -> bool:
    """Whether an override chooses a file of conf/: one that sets values all over, ``+experiment=…``, leaves no key of its own."""
    if "/" in key or "@" in key:
        return True
    return "." not in key and (OmegaConf.is_dict(config.get(key)) or (override.is_add() and key not in composed))


def _apply(config: DictConfig, key: str, override: Override) -> None:
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: a key can't be deleted on resume")
    known = OmegaConf.select(config, key, default=_ABSENT) is not _ABSENT
    if not known and not override.is_add():
        raise ConfigError(f"{key} is not a key of the checkpoint's config; use +{override.input_line} to add it")
    OmegaConf.update(config, key, override.value(), merge=True, force_add=True)


def _value(config: Config, keys: tuple[str, ...]) -> Any:
    node: Any = config
    for key in keys:
        node = node[key]
    return node


_ELSEWHERE = "; start another run from these weights with training.init_from"
_FIXED = {
    ("training", "seed"): f"the rest of the epoch would be another order of samples{_ELSEWHERE}",
    ("training", "overfit"): f"the rest of the epoch would be other samples{_ELSEWHERE}",
    ("training", "optimizer", "_target_"): f"another optimizer can't go on with its moments{_ELSEWHERE}",
}
"""What a resumed run keeps, and why."""

_NOT_OWN = ("winnow", "hydra_plugins")
"""What a `_target_` may name of them is not for a config to widen."""

_ABSENT = object()
