"""Promotion from a search to full training: the best configurations of a study, and how well the search had ranked them."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from rich.table import Table
from scipy.stats import spearmanr

from winnow.config.from_file import TRUSTED
from winnow.errors import ConfigError, WinnowError
from winnow.masking import override_by_environment
from winnow.odds.winner import Expected
from winnow.reading import naming, read_json
from winnow.run_folder import MadeFolders, write_whole
from winnow.sweep.listed import listed_content
from winnow.sweep.luck import Luck, luck_of
from winnow.sweep.promoted_entries import Entry, as_entry, content_of_entry, entry_of, list_text, texts_of
from winnow.sweep.promotion_command import (
    OF_THE_SEARCH,
    fixed_overrides,
    kept_overrides,
    key_of,
    require_same_code,
    training_program,
    usable_overrides,
)  # fmt: skip
from winnow.sweep.stored_study import StoredStudy
from winnow.sweep.table import Row, ranking, why_nothing_was_learned

logger = logging.getLogger(__name__)

LIST = "promoted.csv"
RECORD = "promotion.json"
"""What a promotion was told: another one is a study of its own."""


class PromotionError(WinnowError):
    """The full trainings did not come to an end; the same command goes on with them."""


@dataclass(frozen=True)
class Promoted:
    """``search`` and ``full`` are the objective in the study and after full training, None where that did not complete;
    ``expected`` what the configuration is worth without its luck in the search, None where no repeats tell."""

    number: int
    search: float
    full: float | None
    status: str
    run_folder: str | None
    expected: Expected | None = None


@dataclass(frozen=True)
class Promotion:
    """``rank_correlation`` is Spearman's between both values of the objective ``metric``, None with fewer than three completed
    trainings, and where all are worth the same."""

    metric: str
    runs: tuple[Promoted, ...]
    rank_correlation: float | None

    @property
    def is_whole(self) -> bool:
        """Return whether every full training completed."""
        return all(run.status in ("completed", "eliminated") for run in self.runs)


def promote(
    source: StoredStudy,
    top: int,
    overrides: Sequence[str],
    program: Sequence[str] | None = None,
    by: str | None = None,
    output: TextIO | None = None,
) -> Promotion:
    """Train the ``top`` best completed trials of ``source`` with ``budget=full`` and ``overrides``, as a study of its own
    beside it; those of hydra's (a launcher, ``hydra.sweeper.n_jobs``) say where. Of several objectives ``by`` says which one
    chooses, the first if it is None. The same call again goes on where it was stopped. Where trials are tracked is the same for
    all; a secret of an address goes to their processes by the environment. ``program`` is what Python is given to train, as
    ``training_program`` returns it by default, with its options;
    ``output`` gets what the trainings print, None: standard output. Raises ConfigError, PromotionError.
    """
    program = training_program() if program is None else program
    place = source.objectives.place(by)
    overrides = [override_by_environment(text) for text in overrides]
    where = [text for text in overrides if text.lstrip("+~").startswith(("hydra.", "hydra/", "tracking.", "tracking="))]
    trust = [text for text in overrides if key_of(text) == TRUSTED]
    overrides = [text for text in overrides if text not in (*where, *trust)]
    kept = kept_overrides(source, where)
    found_in = [text for text in where if key_of(text) == "hydra.searchpath"]
    fixed = usable_overrides(fixed_overrides(source), where)
    require_same_code(source, [*fixed, *found_in, *trust], program)
    best = best_configurations(source, top, place)
    if not best:
        raise ConfigError(f"{source.folder} has no completed trial to promote")
    tell_choice(source, best, place)
    chosen = overrides if any(text.startswith("budget=") for text in overrides) else ["budget=full", *overrides]
    as_entry(chosen)
    trials = {trial.number: trial for trial in source.study.get_trials(deepcopy=False)}
    entries = [
        entry_of(trials[row.number], run_folder(source, row), chosen, trust, [*program, *found_in]) for row in best
    ]
    chosen_by = source.objectives.names[place] if source.objectives.are_several else None
    folder = promotion_folder(source.folder, chosen, chosen_by)
    settings = {
        "study_name": folder.name, "n_trials": len(entries), "trials_file": folder / LIST, "accept_changes": "true",
        "direction": f"[{','.join(source.description['definition']['directions'])}]",
        **dict.fromkeys(OF_THE_SEARCH, "null"),
    }  # fmt: skip
    command = [
        sys.executable, *program, "--multirun", *kept, *fixed, *trust, f"hydra.sweep.dir={folder}",
        *(f"hydra.sweeper.{key}={value}" for key, value in settings.items()), *where,
    ]  # fmt: skip
    with MadeFolders(folder) as made:  # where no full training began, nothing stays
        made.make()
        write_whole(folder / RECORD, json.dumps({"overrides": chosen, "by": chosen_by}, indent=2) + "\n")
        write_whole(folder / LIST, list_text(entries))
        ended = subprocess.run(command, check=False, stdout=output)
        if any(path.name.isdigit() for path in folder.iterdir()):
            made.keep()
        if ended.returncode != 0:
            raise PromotionError(
                f"full training ended with exit code {ended.returncode}; the same command goes on with {folder}"
            )
    promotion = compared(best, entries, StoredStudy.open(folder), place)
    return with_expected(promotion, luck_of(source, source.rows())) if place == 0 else promotion


def with_expected(promotion: Promotion, luck: Luck) -> Promotion:
    """Return ``promotion`` with what was to be expected of each run."""
    return replace(
        promotion, runs=tuple(replace(run, expected=luck.expected.get(run.number)) for run in promotion.runs)
    )


def tell_choice(source: StoredStudy, best: Sequence[Row], place: int) -> None:
    """Log which trials are promoted, and by what they were chosen."""
    objectives, name = source.objectives, source.objectives.names[place]
    others = [other for other in objectives.names if other != name]
    logger.info(
        "promoted: trials %s, the best by %s%s", ", ".join(str(row.number) for row in best), name,
        f"; for the best by another objective: --by {' or '.join(others)}" if others else "",
    )  # fmt: skip
    nothing = why_nothing_was_learned(source.rows(), objectives.names)
    if nothing is not None:
        logger.warning("%s; those promoted are the first, not the best", nothing)


def promotion_table(promotion: Promotion) -> Table:
    """Return a table of search value against final value, and how well the one ranks the other."""
    metric, correlation = promotion.metric, promotion.rank_correlation
    words = f"{correlation:.2f}" if correlation is not None else "none: too few trainings, or all are worth the same"
    table = Table(
        title="promoted", title_justify="left", caption=f"rank correlation of search and full training: {words}"
    )
    for column in ("trial", f"{metric} in the search", "expected (80 %)", f"{metric} in full", "status", "run folder"):
        table.add_column(column, overflow="fold")
    for run in promotion.runs:
        full = "" if run.full is None else f"{run.full:.4f}"
        expected = run.expected
        without_luck = "" if expected is None else f"{expected.value:.4f} ({expected.low:.4f} to {expected.high:.4f})"
        table.add_row(str(run.number), f"{run.search:.4f}", without_luck, full, run.status, run.run_folder or "")
    return table


def best_configurations(source: StoredStudy, top: int, place: int = 0) -> list[Row]:
    """Return the ``top`` best completed trials by the objective at ``place``, of equal configurations the best one alone."""
    trials = {trial.number: trial for trial in source.study.get_trials(deepcopy=False)}
    found: dict[str, Row] = {}
    with naming(f"study {source.description['study_name']!r}"):
        for row in ranking(source.rows(), source.objectives.maximize[place], place):
            found.setdefault(content_of_entry(texts_of(trials[row.number])), row)
    return list(found.values())[:top]


def run_folder(source: StoredStudy, row: Row) -> Path:
    """Return where the run of a trial lies: in the study's folder, wherever that was moved to."""
    recorded = Path(row.outcome.run_folder or "")
    inside = [source.folder / str(row.number) / recorded.name, source.folder / str(row.number)]
    own = inside[1:] if recorded.name == str(row.number) else inside
    return next((folder for folder in own if os.path.isdir(folder)), recorded)


def promotion_folder(study: Path, chosen: Sequence[str], by: str | None = None) -> Path:
    """Return the folder of the promotion of ``study`` that was told ``chosen`` and chose ``by`` an objective, or of a new one."""
    for number in itertools.count(1):
        folder = study.with_name(f"{study.name}-promoted{'' if number == 1 else f'-{number}'}")
        if not folder.exists():
            return folder
        record = folder / RECORD
        if record.exists():
            recorded = read_json(record, "what a promotion was told", ConfigError)
            is_same = isinstance(recorded, dict) and recorded.get("overrides") == list(chosen)
            if is_same and recorded.get("by") == by:
                return folder
    raise AssertionError


def compared(best: Sequence[Row], entries: Sequence[Entry], full: StoredStudy, place: int = 0) -> Promotion:
    """Return both values, of the objective at ``place``, of each promoted trial, whose ``entries`` say by what the full trainings
    are known."""
    rows = {row.number: row for row in full.rows()}
    with naming(f"study {full.description['study_name']!r}"):
        numbers = {
            content: trial.number
            for trial in full.study.get_trials(deepcopy=False)
            if (content := listed_content(trial)) is not None
        }
    runs = []
    for searched, entry in zip(best, entries, strict=True):
        row = rows.get(numbers.get(content_of_entry(entry), -1))
        value = row.values[place] if row is not None and row.status == "completed" else None
        folder = row.outcome.run_folder if row is not None else None
        runs.append(Promoted(searched.number, searched.values[place], value, row.status if row else "missing", folder))
    pairs = [(run.search, run.full) for run in runs if run.full is not None]
    can_be_ranked = len(pairs) > 2 and all(len(set(column)) > 1 for column in zip(*pairs, strict=True))
    correlation = float(spearmanr(*zip(*pairs, strict=True)).statistic) if can_be_ranked else None
    return Promotion(full.objectives.names[place], tuple(runs), correlation)
