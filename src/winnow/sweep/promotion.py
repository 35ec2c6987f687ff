"""Promotion from a search to full training: the best configurations of a study, and how well the search had ranked them."""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from scipy.stats import spearmanr

from winnow.config.flat import flat
from winnow.config.from_file import (
    TRUSTED,
    require_run_overrides,
    require_trusted,
    search_path_override,
    trusted_by,
)  # fmt: skip
from winnow.config.moved import with_added_keys, with_moved_names, with_moved_targets
from winnow.errors import ConfigError, WinnowError
from winnow.masking import is_masked, masked, masked_tree, override_by_environment, usable
from winnow.reading import parse_yaml, read_yaml
from winnow.run_folder import PIPELINE_RECORD, write_whole
from winnow.sweep.stored_study import DESCRIPTION, StoredStudy
from winnow.sweep.table import Row, ranking

logger = logging.getLogger(__name__)

LIST = "promoted.json"
# What may differ between a trial's run and its full training without making another run of it.
_LENGTH = (
    "training.max_epochs",
    "training.max_iter",
    "training.resume",
    "training.save_interval",
    "training.keep_last_n",
    "training.frozen_weights",
    "training.frozen_source",
)
_NOT_THE_RUN = ("budget.", "tracking.", "hydra.")
_OF_THE_SEARCH = ("pruner", "params", "seeds", "custom_search_space", "timeout", "max_cost")
"""Settings of the sweeper that hold for the search and not for the full trainings."""
_NOT_KEPT = (
    "hydra.mode", "hydra.searchpath", "hydra.run.", "hydra.sweep.", "hydra.output_subdir",
    *(
        f"hydra.sweeper.{name}"
        for name in ("storage", "study_name", "n_trials", "trials_file", "direction", "fresh", "dry_run", *_OF_THE_SEARCH)
    ),
)  # fmt: skip
_KEPT = re.compile(
    r"hydra/(sweeper|launcher)|hydra/sweeper/sampler|hydra\.sweeper\.(n_jobs|devices|metrics|max_\w+|plots|in_process|recycle_after)"
    r"|hydra\.sweeper\.sampler\.\w+|hydra\.(verbose|job\.name)"
    r"|hydra\.launcher\.(timeout_min|\w+_per_(task|node|gpu|cpu)|mem_gb|nodes|name|stderr_to_stdout|partition|qos|comment|constraint"
    r"|exclude|gres|account|signal_delay_s|max_num_timeout|array_parallelism|use_srun|n_jobs)"
)
"""What a study's own command may have said of Hydra that is taken from ``sweep.yaml``: slots and what a cluster gives them."""


class PromotionError(WinnowError):
    """The full trainings did not come to an end; the same command goes on with them."""


@dataclass(frozen=True)
class Promoted:
    """``search`` and ``full`` are the objective in the study and after full training, None where that did not complete."""

    number: int
    search: float
    full: float | None
    status: str
    run_folder: str | None


@dataclass(frozen=True)
class Promotion:
    """``rank_correlation`` is Spearman's between both values, None with fewer than three completed trainings."""

    runs: tuple[Promoted, ...]
    rank_correlation: float | None


def promote(source: StoredStudy, top: int, overrides: Sequence[str], program: Path = Path("train.py")) -> Promotion:
    """Train the ``top`` best completed trials of ``source`` with ``budget=full`` and ``overrides``, as a study of its own
    beside it; those of hydra's (a launcher, ``hydra.sweeper.n_jobs``) say where. The same call again goes on where it was
    stopped. Where trials are tracked is the same for all; a secret of an address goes to their processes by the environment.
    Raises ConfigError, PromotionError.
    """
    overrides = [override_by_environment(text) for text in overrides]
    where = [text for text in overrides if text.lstrip("+~").startswith(("hydra.", "hydra/", "tracking.", "tracking="))]
    trust = [text for text in overrides if _key(text) == TRUSTED]
    overrides = [text for text in overrides if text not in (*where, *trust)]
    kept = kept_overrides(source, where)
    found_in = [text for text in where if _key(text) == "hydra.searchpath"]
    fixed = usable_overrides(_fixed_overrides(source), where)
    require_same_code(source, [*fixed, *found_in, *trust], program)
    best = ranking(source.rows(), source.maximize)[:top]
    if not best:
        raise ConfigError(f"{source.folder} has no completed trial to promote")
    folder = source.folder.with_name(f"{source.folder.name}-promoted")
    chosen = overrides if any(text.startswith("budget=") for text in overrides) else ["budget=full", *overrides]
    entries = [_entry(row, chosen, trust, [str(program), *found_in]) for row in best]
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / LIST, json.dumps(entries, indent=2) + "\n")
    settings = {
        "study_name": folder.name, "n_trials": len(entries), "trials_file": folder / LIST, "accept_changes": "true",
        "direction": f"[{','.join(source.description['definition']['directions'])}]",
        **dict.fromkeys(_OF_THE_SEARCH, "null"),
    }  # fmt: skip
    command = [
        sys.executable, str(program), "--multirun", *kept, *fixed, *trust, f"hydra.sweep.dir={folder}",
        *(f"hydra.sweeper.{key}={value}" for key, value in settings.items()), *where,
    ]  # fmt: skip
    ended = subprocess.run(command, check=False)
    if ended.returncode != 0:
        raise PromotionError(
            f"full training ended with exit code {ended.returncode}; the same command goes on with {folder}"
        )
    return _compared(best, StoredStudy.open(folder))


def usable_overrides(recorded: Sequence[str], said_anew: Sequence[str]) -> list[str]:
    """Return the ``recorded`` overrides without those ``said_anew``, where one lacks its secret with what the environment has for
    it. Raises ConfigError where that has none."""
    anew = {_key(text) for text in said_anew}
    found = []
    for text in recorded:
        if _key(text) in anew or (_key(text).startswith("tracking.") and "tracking" in anew):
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


def promotion_table(promotion: Promotion, metric: str) -> Table:
    """Search value against final value, and how well the one ranks the other."""
    correlation = promotion.rank_correlation
    words = "too few to tell" if correlation is None else f"{correlation:.2f}"
    table = Table(
        title="promoted", title_justify="left", caption=f"rank correlation of search and full training: {words}"
    )
    for column in ("trial", f"{metric} in the search", f"{metric} in full", "status", "run folder"):
        table.add_column(column, overflow="fold")
    for run in promotion.runs:
        full = "" if run.full is None else f"{run.full:.4f}"
        table.add_row(str(run.number), f"{run.search:.4f}", full, run.status, run.run_folder or "")
    return table


def kept_overrides(source: StoredStudy, said_anew: Sequence[str]) -> list[str]:
    """Return what the study's own command said of Hydra (sweeper, slots, launcher), without what was the search's alone.
    Raises ConfigError for what could have something else executed, and was not ``said_anew``: a file may not choose that."""
    anew = {_key(text) for text in said_anew}
    kept = [
        text
        for text in source.description["hydra_overrides"]
        if _key(text) not in anew and not _key(text).replace("/", ".").startswith(_NOT_KEPT)
    ]
    for text in kept:
        if "_target_" in text or not text.isprintable() or not _KEPT.fullmatch(_key(text)):
            raise ConfigError(
                f"{source.folder / DESCRIPTION} holds {text!r}, which could have something else executed; give it again "
                "to winnow promote if it is to hold, or another value for its key"
            )
    return kept


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def require_same_code(source: StoredStudy, overrides: Sequence[str], program: Path) -> None:
    """Raise ConfigError where the study trusted more than ``overrides`` and conf/ do, or found config groups where this command
    does not look for them."""
    path, places = source.folder / DESCRIPTION, source.description["search_path"]
    if places and not any(_key(text) == "hydra.searchpath" for text in overrides):
        raise ConfigError(
            f"{path} says that config groups lie in {', '.join(places)} too, and what lies there could choose what is executed. "
            f"If it is yours, add {shlex.join(search_path_override(places))}"
        )
    recorded = trusted_by(source.description["overrides"])
    if recorded:
        require_trusted(recorded, _composed(overrides, [str(program)])[TRUSTED], str(path))


def _fixed_overrides(source: StoredStudy) -> list[str]:
    """Return what the study's own command said of every run, without what it searched. Raises ConfigError for what a file may
    not say."""
    searched = set(source.description["definition"]["search_space"])
    overrides = [text for text in source.description["overrides"] if _key(text) != TRUSTED]
    require_run_overrides(overrides, str(source.folder / DESCRIPTION))
    began_with = with_moved_names(overrides, source.description["definition"]["base"])
    return [text for text in began_with if text.lstrip("+").split("=", 1)[0] not in searched]


def _entry(row: Row, chosen: Sequence[str], trust: Sequence[str], command: Sequence[str]) -> dict[str, Any]:
    """Return the explicit trial that trains ``row``'s configuration in full: on from its own checkpoint where nothing
    but the length of the training differs, else afresh. ``trust`` is what this command says of ``trusted_targets``.
    """
    run = Path(row.outcome.run_folder or "")
    last = run / "checkpoints" / "last.pth"
    added = dict(text.lstrip("+").split("=", 1) for text in chosen)
    parsed = {key: parse_yaml(value) for key, value in added.items()}
    if (run / PIPELINE_RECORD).exists():
        logger.warning(
            "trial %d is a pipeline: all of its stages are trained from the beginning, nothing of the search is gone on from",
            row.number,
        )
        return {**row.params, **parsed}
    if not last.exists() or not (run / ".hydra" / "overrides.yaml").exists():
        logger.info("trial %d starts afresh: it left no checkpoint", row.number)
        return {**row.params, **parsed}
    recorded = read_yaml(run / "config.yaml", "the config of a run", ConfigError)
    old = flat(masked_tree(with_added_keys(with_moved_targets(recorded))))
    listed = run / ".hydra" / "overrides.yaml"
    task = [
        text
        for text in with_moved_names(read_yaml(listed, "the overrides of a run", ConfigError), recorded)
        if _key(text) not in ("training.resume", TRUSTED) and not _key(text).startswith("tracking.")
    ]
    require_run_overrides(task, str(listed))
    new = flat(_composed([*task, *chosen, *trust], command))
    changed = {
        key: value for key, value in new.items() if old.get(key, None) != value and not key.startswith(_NOT_THE_RUN)
    }
    another = sorted(set(changed) - set(_LENGTH))
    if another:
        shown = ", ".join(f"{key} {old.get(key)} → {changed[key]}" for key in another[:5])
        logger.info("trial %d starts afresh, for more than its length changes: %s", row.number, shown)
        return {**row.params, **parsed}
    logger.info("trial %d goes on from %s", row.number, last)
    lengths = {key: value for key, value in changed.items() if key != "training.resume"}
    return {**row.params, **lengths, "training.resume": str(last)}


def _composed(overrides: Sequence[str], command: Sequence[str]) -> Mapping[str, Any]:
    whole = [sys.executable, *command, "--cfg", "job", "--resolve", *overrides]
    shown = subprocess.run(whole, check=False, capture_output=True, text=True)
    if shown.returncode != 0:
        raise ConfigError(f"{masked(' '.join(overrides))} can't be composed:\n{shown.stderr.strip()}")
    return dict(masked_tree(parse_yaml(shown.stdout)))


def _compared(best: Sequence[Row], full: StoredStudy) -> Promotion:
    """Return both values of each promoted trial; the list's order is the ranking's, and a listed trial's number its
    place there.
    """
    rows = {row.number: row for row in full.rows()}
    runs = []
    for place, searched in enumerate(best):
        row = rows.get(place)
        value = row.value if row is not None and row.status == "completed" else None
        folder = row.outcome.run_folder if row is not None else None
        runs.append(Promoted(searched.number, searched.value or 0.0, value, row.status if row else "missing", folder))
    pairs = [(run.search, run.full) for run in runs if run.full is not None]
    correlation = float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else None
    return Promotion(tuple(runs), correlation)
