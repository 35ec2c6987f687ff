"""The page of a study: its trials, what they found, which parameters mattered, and what pruning cut short."""

from __future__ import annotations

import logging
import math
import random
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from winnow.report.page import render
from winnow.run_folder import write_whole
from winnow.sections import Axis, Bars, Block, Cell, Commands, Lines, Parallel, Section, Series, Table, Text
from winnow.sweep.luck import luck_lines
from winnow.sweep.stored_study import StoredStudy
from winnow.sweep.table import Row, counts, ranking, spent, why_nothing_was_learned

logger = logging.getLogger(__name__)

MOST_ROWS, MOST_CURVES, MOST_POINTS, MOST_FOR_IMPORTANCE = 200, 80, 1500, 1000
"""What is drawn of a large study: the best, the last, and a sample of the rest."""


def write_study_report(stored: StoredStudy, path: Path) -> Path:
    """Write the page of ``stored`` to ``path``, and return that. Raises ConfigError for a trial that holds something damaged;
    OSError."""
    rows = stored.rows()
    names = stored.objectives.names
    sections = [
        Section("Overview", _overview(stored, rows)),
        Section("Trials", _trials(rows, names, stored.objectives.maximize)),
        Section("History", _history(rows, names, stored.objectives.maximize)),
        Section("Parameters", _parameters(stored, rows)),
        Section("Learning curves", _curves(stored)),
        Section("What to do next", [_next_commands(stored)]),
    ]
    write_whole(path, render(f"study {stored.description['study_name']}", str(stored.folder.absolute()), sections))
    return path


def chosen(rows: Sequence[Row], most: int, maximize: bool) -> list[Row]:
    """Return ``rows`` if they are at most ``most``; else the best third, the last third and a sample of the others, by number."""
    if len(rows) <= most:
        return list(rows)
    best = ranking(rows, maximize)[: most // 3]
    kept = {row.number: row for row in [*best, *rows[-(most // 3) :]]}
    others = [row for row in rows if row.number not in kept]
    kept |= {row.number: row for row in random.Random(0).sample(others, most - len(kept))}
    return [kept[number] for number in sorted(kept)]


def _overview(stored: StoredStudy, rows: Sequence[Row]) -> list[Block]:
    names, used = stored.objectives.names, spent(rows)
    epochs_of_pruned = sum(row.outcome.epochs for row in rows if row.status == "pruned")
    facts: list[tuple[Cell, ...]] = [
        ("objective", ", ".join(f"{name}, {'max' if up else 'min'}imised" for name, up in _directions(stored))),
        ("trials", ", ".join(f"{number} {status}" for status, number in counts(rows).items()) or "none ended yet"),
        ("epochs", used.pop("epochs", 0.0)),
        ("of these in pruned trials", epochs_of_pruned),
        *((f"cost, {name}", amount) for name, amount in used.items()),
        ("folder", str(stored.folder.absolute())),
    ]
    blocks: list[Block] = [Table(("", ""), facts)]
    nothing = why_nothing_was_learned(rows, names)
    if nothing is not None:
        blocks.insert(
            0, Text(f"{nothing[0].upper()}{nothing[1:]}; a longer training or another search may tell them apart.")
        )
    blocks += [Text(line) for line in luck_lines(stored, rows)]
    for place, (name, maximize) in enumerate(_directions(stored)):
        best = next(iter(ranking(rows, maximize, place)), None)
        if best is not None and nothing is None:
            own = [(key, _cell(value)) for key, value in best.params.items()]
            blocks.append(Table(("best trial", str(best.number)), [(name, best.values[place]), *own]))
    return blocks


def _trials(rows: Sequence[Row], names: Sequence[str], maximize: Sequence[bool]) -> list[Block]:
    shown = chosen(rows, MOST_ROWS, maximize[0])
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    cells = [
        (
            row.number, row.status, *(row.values or [None] * len(names)), *(_cell(row.params.get(key)) for key in keys),
            row.outcome.epochs, round(row.outcome.seconds), row.outcome.reason or "", row.outcome.run_folder or "",
        )
        for row in shown
    ]  # fmt: skip
    columns = ("trial", "status", *names, *keys, "epochs", "seconds", "reason", "run folder")
    best = {place: next(iter(ranking(shown, up, place)), None) for place, up in enumerate(maximize)}
    numbers = [row.number for row in shown]
    marked = frozenset((numbers.index(row.number), 2 + place) for place, row in best.items() if row is not None)
    return [*_thinned(len(shown), len(rows), "trials"), Table(columns, cells, marked=marked)]


def _history(rows: Sequence[Row], names: Sequence[str], maximize: Sequence[bool]) -> list[Block]:
    blocks: list[Block] = []
    for place, (name, up) in enumerate(zip(names, maximize, strict=True)):
        ended = [row for row in rows if row.status == "completed" and row.values]
        so_far: list[float] = []
        for row in ended:
            value = row.values[place]
            so_far.append(value if not so_far else (max if up else min)(so_far[-1], value))
        shown = chosen(ended, MOST_POINTS, up)
        pruned = [row for row in rows if row.status == "pruned" and row.values]
        pruned = chosen(pruned, MOST_POINTS // 3, up)
        series = [
            Series("completed", [row.number for row in shown], [row.values[place] for row in shown]),
            Series("pruned, at its last epoch", [row.number for row in pruned], [row.values[place] for row in pruned]),
        ]
        blocks.append(Lines(f"{name} by trial", "trial", name, series, points=True))
        best = Series("best so far", [row.number for row in ended], so_far)
        blocks.append(Lines(f"Best {name} so far", "trial", name, [best]))
    return blocks


def _parameters(stored: StoredStudy, rows: Sequence[Row]) -> list[Block]:
    names, maximize = stored.objectives.names, stored.objectives.maximize[0]
    blocks: list[Block] = []
    if len(names) == 1 and why_nothing_was_learned(rows, names) is None:
        blocks += _importances(stored, names[0])
    with_values = [row for row in rows if row.values and row.params]
    ended = chosen(with_values, MOST_CURVES * 3, maximize)
    space = _space(stored.study)
    if not ended or not space:
        return blocks
    values = [row.values[0] for row in ended]
    low, high = min(values), max(values)
    shades = [(value - low) / (high - low) if high > low else 1.0 for value in values]
    axes = [_axis(name, distribution) for name, distribution in space.items()]
    lines = [[*(_coordinate(axis, row.params.get(axis.name)) for axis in axes), row.values[0]] for row in ended]
    blocks.append(
        Parallel(
            "Parameters of each trial, the best ones darkest", [*axes, Axis(names[0])], lines,
            shades if maximize else [1 - shade for shade in shades],
        )
    )  # fmt: skip
    return [*blocks, *_thinned(len(ended), len(with_values), "trials")]


def _importances(stored: StoredStudy, name: str) -> list[Block]:
    completed = stored.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(completed) < 4:
        return [Text("Which parameter matters can be told from four completed trials on.")]
    some = optuna.create_study(directions=stored.study.directions)
    some.add_trials(random.Random(0).sample(completed, min(len(completed), MOST_FOR_IMPORTANCE)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(some)
    except (RuntimeError, ValueError) as error:
        return [Text(f"Which parameter matters can't be told: {error}")]
    note = f"Share of the variance of {name} that each parameter explains (fANOVA), from {len(some.trials)} completed trials."
    return [Bars("Importance of each parameter", list(found), list(found.values()), note)] if found else []


def _curves(stored: StoredStudy) -> list[Block]:
    trials = [trial for trial in stored.study.get_trials(deepcopy=False) if trial.intermediate_values]
    if not trials:
        return [Text("No trial has reported an epoch.")]
    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.values]
    best = sorted(completed, key=lambda trial: trial.values[0], reverse=stored.maximize)[:5]
    others = [trial for trial in trials if trial not in best]
    kept = others if len(others) <= MOST_CURVES else random.Random(0).sample(others, MOST_CURVES)
    series = [*(_curve(trial, faint=True) for trial in kept), *(_curve(trial, faint=False) for trial in best)]
    name = stored.objectives.names[0]
    return [
        *_thinned(len(kept) + len(best), len(trials), "curves"),
        Lines(f"{name} of the five best trials, and of the others behind them", "epoch", name, series),
    ]


def _curve(trial: FrozenTrial, faint: bool) -> Series:
    steps = sorted(trial.intermediate_values)
    return Series(f"trial {trial.number}", steps, [trial.intermediate_values[step] for step in steps], faint)


def _next_commands(stored: StoredStudy) -> Commands:
    folder = shlex.quote(str(stored.folder))
    return Commands([
        ("train the three best in full", f"winnow promote {folder} --top 3"),
        ("see it in the terminal", f"winnow study {folder}"),
        ("a page of one trial", f"winnow report {folder}/NUMBER"),
    ])  # fmt: skip


def _directions(stored: StoredStudy) -> list[tuple[str, bool]]:
    return list(zip(stored.objectives.names, stored.objectives.maximize, strict=True))


def _space(study: optuna.Study) -> dict[str, BaseDistribution]:
    """Return the distribution of every searched parameter, by the last trial that had it."""
    space: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        space |= trial.distributions
    return space


def _axis(name: str, distribution: BaseDistribution) -> Axis:
    if isinstance(distribution, CategoricalDistribution):
        return Axis(name, tuple(str(choice) for choice in distribution.choices))
    return Axis(name, log=bool(getattr(distribution, "log", False)))


def _coordinate(axis: Axis, value: Any) -> float | str | None:
    if axis.choices:
        return None if value is None else str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    if isinstance(value, int | float | str):
        return value
    return str(value)


def _thinned(shown: int, total: int, what: str) -> list[Block]:
    return (
        [Text(f"{shown} of {total} {what} are shown: the best, the last, and a sample of the others.")]
        if shown < total
        else []
    )
