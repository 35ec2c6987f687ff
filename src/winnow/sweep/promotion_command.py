"""What a promotion's command takes over from the study's own: where it ran and what it said of every run, and nothing that
decides what is executed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.config.from_file import (
    TRUSTED,
    require_run_overrides,
    require_trusted,
    search_path_override,
    trusted_by,
)  # fmt: skip
from winnow.config.moved import with_moved_names
from winnow.errors import ConfigError
from winnow.masking import is_masked, masked, masked_tree, usable
from winnow.reading import parse_yaml
from winnow.sweep.stored_study import DESCRIPTION, StoredStudy

OF_THE_SEARCH = ("pruner", "params", "seeds", "repeat_over", "custom_search_space", "timeout", "max_cost")
"""Settings of the sweeper that hold for the search and not for the full trainings."""
_NOT_KEPT = (
    "hydra.mode", "hydra.searchpath", "hydra.run.", "hydra.sweep.", "hydra.output_subdir", "hydra.sweeper.sampler",
    *(
        f"hydra.sweeper.{name}"
        for name in ("storage", "study_name", "n_trials", "trials_file", "direction", "fresh", "dry_run", *OF_THE_SEARCH)
    ),
)  # fmt: skip
_KEPT = re.compile(
    r"hydra/(sweeper|launcher)|hydra\.sweeper\.(n_jobs|devices|metrics|force_direction|max_\w+|plots|in_process|recycle_after)"
    r"|hydra\.(verbose|job\.name)"
    r"|hydra\.launcher\.(timeout_min|\w+_per_(task|node|gpu|cpu)|mem_gb|nodes|name|stderr_to_stdout|partition|qos|comment|constraint"
    r"|exclude|gres|account|signal_delay_s|max_num_timeout|array_parallelism|use_srun|n_jobs)"
)
"""What a study's own command may have said of Hydra that is taken from ``sweep.yaml``: slots and what a cluster gives them."""


def training_program(config_dir: Path | None = None) -> list[str]:
    """Return what Python is given to train in the working folder: its train.py, or winnow's own; with a folder of more config
    groups."""
    program = ["train.py"] if Path("train.py").is_file() else ["-m", "winnow", "train"]
    return [*program, *(["--config-dir", str(config_dir)] if config_dir is not None else [])]


def kept_overrides(source: StoredStudy, said_anew: Sequence[str]) -> list[str]:
    """Return what the study's own command said of Hydra (sweeper, slots, launcher), without what was the search's alone.
    Raises ConfigError for what could have something else executed, and was not ``said_anew``: a file may not choose that."""
    anew = {key_of(text) for text in said_anew}
    kept = [
        text
        for text in source.description["hydra_overrides"]
        if key_of(text) not in anew and not key_of(text).replace("/", ".").startswith(_NOT_KEPT)
    ]
    for text in kept:
        if "_target_" in text or not text.isprintable() or not _KEPT.fullmatch(key_of(text)):
            raise ConfigError(
                f"{source.folder / DESCRIPTION} holds {text!r}, which could have something else executed; give it again "
                "to winnow promote if it is to hold, or another value for its key"
            )
    return kept


def key_of(override: str) -> str:
    """Return the key that an override sets, without its prefix."""
    return override.lstrip("+~").partition("=")[0]


def require_same_code(source: StoredStudy, overrides: Sequence[str], program: Sequence[str]) -> None:
    """Raise ConfigError where the study trusted more than ``overrides`` and conf/ do, or found config groups where this command
    does not look for them."""
    path, places = source.folder / DESCRIPTION, source.description["search_path"]
    if places and not any(key_of(text) == "hydra.searchpath" for text in overrides) and "--config-dir" not in program:
        raise ConfigError(
            f"{path} says that config groups lie in {', '.join(places)} too, and what lies there could choose what is executed. "
            f"If it is yours, add {shlex.join(search_path_override(places))}, or --config-dir"
        )
    recorded = trusted_by(source.description["overrides"])
    if recorded:
        require_trusted(recorded, composed_by(overrides, program)[TRUSTED], str(path))


def fixed_overrides(source: StoredStudy) -> list[str]:
    """Return what the study's own command said of every run, without what it searched. Raises ConfigError for what a file may
    not say."""
    searched = set(source.description["definition"]["search_space"])
    overrides = [text for text in source.description["overrides"] if key_of(text) != TRUSTED]
    require_run_overrides(overrides, str(source.folder / DESCRIPTION))
    began_with = with_moved_names(overrides, source.description["definition"]["base"])
    return [text for text in began_with if text.lstrip("+").split("=", 1)[0] not in searched]


def usable_overrides(recorded: Sequence[str], said_anew: Sequence[str]) -> list[str]:
    """Return the ``recorded`` overrides without those ``said_anew``; one that lacks its secret with what the environment has for
    it. Raises ConfigError where that has none."""
    anew = {key_of(text) for text in said_anew}
    found = []
    for text in recorded:
        if key_of(text) in anew or (key_of(text).startswith("tracking.") and "tracking" in anew):
            continue
        key, _, value = text.partition("=")
        if is_masked(value):
            text = f"{key}={usable(value)}"
            if is_masked(text):
                raise ConfigError(
                    f"the study began with {text}, whose secret is not recorded; give {key}=… again, or set "
                    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (a database: PGPASSWORD)"
                )
        found.append(text)
    return found


def composed_by(overrides: Sequence[str], command: Sequence[str]) -> Mapping[str, Any]:
    """Return the config, masked, that the program and options ``command`` composes with ``overrides``. Raises ConfigError."""
    whole = [sys.executable, *command, "--cfg", "job", "--resolve", *overrides]
    shown = subprocess.run(whole, check=False, capture_output=True, text=True)
    if shown.returncode != 0:
        raise ConfigError(f"{masked(' '.join(overrides))} can't be composed:\n{shown.stderr.strip()}")
    return dict(masked_tree(parse_yaml(shown.stdout)))
