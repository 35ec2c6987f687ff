"""What a study's values are worth without their luck: what to expect of its winner, how truly short runs rank, which parameter
mattered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from winnow.odds.importance import Importances, importances
from winnow.odds.ranks import RankForecast, rank_forecast
from winnow.odds.verdict import Spread
from winnow.odds.winner import Expected, expected_values
from winnow.results.measured import MeasuredRun, measured_or_none
from winnow.results.spread import known_spread
from winnow.sweep.stored_study import StoredStudy
from winnow.sweep.table import Row, ranking, why_nothing_was_learned

FULL_IS_LONGER = 3.0
"""By what factor a full training is taken to be longer than the search's runs, where its ranking is forecast."""


@dataclass(frozen=True)
class Luck:
    """``spread``: the noise of one value, None where nothing is known of it; ``expected`` by trial number, of completed
    trials."""

    spread: Spread | None
    expected: dict[int, Expected]


def luck_of(stored: StoredStudy, rows: Sequence[Row]) -> Luck:
    """Return what is to be expected of each completed trial that is trained again, by the study's first objective."""
    completed = ranking(rows, stored.maximize)
    spread = spread_of(stored, completed)
    if spread is None:
        return Luck(None, {})
    sigma = spread.sigma / math.sqrt(_seeds_of(stored, completed[0]))
    found = expected_values([row.values[0] for row in completed], sigma, stored.maximize)
    return Luck(spread, {row.number: expected for row, expected in zip(completed, found, strict=True)})


def spread_of(stored: StoredStudy, completed: Sequence[Row]) -> Spread | None:
    """Return the spread between seeds as the sources of ``winnow compare`` have it for the study's best trial."""
    for row in completed[:1]:
        run = _run_of(stored, row)
        if run is not None and run.metric == stored.objectives.names[0]:
            return known_spread([run], [run])
    return None


def forecast_of(stored: StoredStudy, spread: Spread | None) -> RankForecast | None:
    """Return how truly the search's runs rank configurations for a full training; None with too few completed curves."""
    trials = stored.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    curves = [[trial.intermediate_values[step] for step in sorted(trial.intermediate_values)] for trial in trials]
    usual = Counter(map(len, curves)).most_common(1)
    if not usual or usual[0][0] < 2:
        return None
    kept = [curve for curve in curves if len(curve) == usual[0][0] and all(map(math.isfinite, curve))]
    return rank_forecast(kept, spread.sigma if spread is not None else None, FULL_IS_LONGER)


def importances_of(stored: StoredStudy) -> Importances | None:
    """Return what each searched parameter explains of the first objective; None where that can't be told."""
    trials = [
        trial
        for trial in stored.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if math.isfinite(trial.values[0])
    ]
    names = [
        name for name in (trials[0].distributions if trials else ()) if all(name in trial.params for trial in trials)
    ]
    columns: dict[str, list[Any]] = {}
    for name in names:
        distribution, values = trials[0].distributions[name], [trial.params[name] for trial in trials]
        if isinstance(distribution, CategoricalDistribution):
            columns[name] = [str(value) for value in values]
        else:
            columns[name] = [
                math.log(value) if getattr(distribution, "log", False) else float(value) for value in values
            ]
    return importances(columns, [trial.values[0] for trial in trials])


def luck_lines(stored: StoredStudy, rows: Sequence[Row]) -> list[str]:
    """Return what is said below a study's table: the value to expect of the best trial, how truly it was ranked, what
    mattered."""
    nothing = why_nothing_was_learned(rows, stored.objectives.names)
    if stored.objectives.are_several or nothing is not None or not ranking(rows, stored.maximize):
        return []
    luck, best = luck_of(stored, rows), ranking(rows, stored.maximize)[0]
    lines = [expected_text(best.number, luck)]
    forecast = forecast_of(stored, luck.spread)
    if forecast is not None:
        lines.append(
            f"rank correlation to expect between search and a full training: {forecast.value:.2f} (80 %: {forecast.low:.2f} to "
            f"{forecast.high:.2f}), from {forecast.trials} completed curves"
        )
    mattered = importances_of(stored)
    return [*lines, mattered.words] if mattered is not None else lines


def expected_text(number: int, luck: Luck) -> str:
    """Return what to expect of trial ``number``, or why that is not known."""
    expected = luck.expected.get(number)
    if expected is None or luck.spread is None:
        return "what to expect of the best trial after retraining is not known: no repeats tell how far seeds spread"
    return (
        f"to expect of trial {number} after retraining: {expected.value:.4f} (80 %: {expected.low:.4f} to {expected.high:.4f}), "
        f"seeds spreading by σ = {luck.spread.sigma:.4f}, from {luck.spread.source}"
    )


def _run_of(stored: StoredStudy, row: Row) -> MeasuredRun | None:
    own = stored.folder / str(row.number)
    folders = [own, *_seed_folders(own), *([Path(row.outcome.run_folder)] if row.outcome.run_folder else [])]
    return next((run for folder in folders if (run := measured_or_none(folder)) is not None), None)


def _seed_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/result.json"))


def _seeds_of(stored: StoredStudy, row: Row) -> int:
    """Return over how many runs a trial's value is the mean."""
    return max(1, len(_seed_folders(stored.folder / str(row.number))))
