"""What a study has cost so far, over all processes that work on it: its ended trials, and those that run, as far as they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from optuna.trial import FrozenTrial

from winnow.reading import UnreadableError, as_float, parse_json
from winnow.sweep.outcome import COST, OUTCOME, outcome_of


class StudyCost:
    """Sums up the trials of one study; those that have ended are read once."""

    def __init__(self) -> None:
        self._ended: dict[int, dict[str, float]] = {}

    def of(self, trials: Iterable[FrozenTrial]) -> dict[str, float]:
        """Return the amounts of ``trials`` by the names of ``Outcome.cost``."""
        total: dict[str, float] = {}
        for trial in trials:
            own = self._ended.get(trial.number)
            if own is None:
                own = cost_of(trial)
                if trial.state.is_finished():
                    self._ended[trial.number] = own
            _add(total, own)
        return total


def cost_of(trial: FrozenTrial) -> dict[str, float]:
    """Return the cost of all runs of ``trial``: as the outcome says, else as far as the run has told. Raises ConfigError for a
    damaged outcome."""
    runs = {
        name.partition(key)[2] for name in trial.user_attrs for key in (OUTCOME, COST) if name.startswith(f"{key}:")
    }
    total: dict[str, float] = {}
    for run in runs or {""}:  # with several seeds the outcome of the whole is their sum
        outcome = outcome_of(trial, OUTCOME + run)
        _add(
            total,
            outcome.cost if outcome is not None and outcome.cost else _stored_amounts(trial.user_attrs.get(COST + run)),
        )
    return total


def _stored_amounts(text: object) -> dict[str, float]:
    """Return the amounts that a run stored as JSON, by name; none where that is damaged."""
    try:
        found = parse_json(text) if isinstance(text, str) else {}
    except UnreadableError:
        return {}
    amounts = {str(name): as_float(value) for name, value in found.items()} if isinstance(found, dict) else {}
    return {name: amount for name, amount in amounts.items() if math.isfinite(amount)}


def _add(total: dict[str, float], own: Mapping[str, float]) -> None:
    for name, amount in own.items():
        total[name] = total.get(name, 0.0) + amount
