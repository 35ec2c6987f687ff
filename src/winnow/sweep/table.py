"""The trials of a study as rows: what the CSV, the console and the ranking are made of."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from winnow.errors import ConfigError
from winnow.run_folder import write_whole
from winnow.sweep.listed import NO_LONGER_LISTED
from winnow.sweep.outcome import OWNER, RELEASED, STARTED, Outcome, outcome_of, overrides_of

FIRST_COLUMNS = ("trial_id", "status", "final_map", "final_loss")
LAST_COLUMNS = (
    "epochs",
    "cost",
    "seconds",
    "pruned_at",
    "reason",
    "seed",
    "run_folder",
    "mlflow_run_id",
    "final_objective",
)
_STATUS_OF_STATE = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Row:
    """One trial that ended or was interrupted. ``value`` is the objective (the first of several, ``other_values`` the rest),
    ``cost`` in images of 640×640 pixels."""

    number: int
    status: str
    value: float | None
    params: dict[str, Any]
    outcome: Outcome
    other_values: tuple[float, ...] = ()

    @property
    def values(self) -> tuple[float, ...]:
        """Return all objectives, in the study's order; none where there is no value."""
        return () if self.value is None else (self.value, *self.other_values)

    @property
    def cost(self) -> float | None:
        return self.outcome.cost.get("images_640")


def rows_of(
    trials: Iterable[FrozenTrial],
    is_eliminated: Callable[[FrozenTrial], bool] = lambda trial: False,
    unlisted: Collection[int] = (),
    num_values: int | None = None,
) -> list[Row]:
    """Return rows by trial number; trials that run right now or were never started have none. Those of ``unlisted`` say in their
    reason that they no longer stand in the study's list. Raises ConfigError for a trial that holds something damaged, or
    not ``num_values`` values."""
    rows = []
    for trial in trials:
        if trial.values and num_values is not None and len(trial.values) != num_values:
            raise ConfigError(
                f"trial {trial.number} holds {len(trial.values)} values, the study has {num_values} objectives"
            )
        outcome = outcome_of(trial)
        if trial.state.is_finished():
            status = outcome.status if outcome is not None else _STATUS_OF_STATE[trial.state]
            status = "eliminated" if status == "completed" and is_eliminated(trial) else status
        elif trial.user_attrs.get(STARTED) and trial.user_attrs.get(OWNER) == RELEASED:
            status = "interrupted"
        else:
            continue
        overrides = dict(text.lstrip("+").partition("=")[::2] for text in overrides_of(trial))
        params = {**trial.params, **overrides}
        value = trial.values[0] if trial.values and status in ("completed", "eliminated", "pruned") else None
        outcome = outcome or Outcome(status, tuple(trial.values or ()))
        # Another program than winnow's says no epochs; what it reported tells them.
        outcome = replace(outcome, epochs=outcome.epochs or trial.last_step or 0)
        if trial.number in unlisted:
            outcome = replace(outcome, reason="; ".join(filter(None, (NO_LONGER_LISTED, outcome.reason))))
        others = tuple(trial.values[1:]) if trial.values else ()
        rows.append(Row(trial.number, status, value, params, outcome, others))
    return rows


def ranking(rows: Iterable[Row], maximize: bool, by: int = 0) -> list[Row]:
    """Return the completed ones, best first by the objective at place ``by``."""
    completed = [row for row in rows if row.status == "completed" and row.value is not None]
    return sorted(completed, key=lambda row: row.values[by], reverse=maximize)


def why_nothing_was_learned(rows: Iterable[Row], metrics: Sequence[str]) -> str | None:
    """Return in words that all completed trials, two or more, are worth the same; None where they are not."""
    values = [row.values for row in rows if row.status in ("completed", "eliminated") and row.values]
    if len(values) < 2 or not all(_are_equal(values[0], other) for other in values):
        return None
    return (
        f"nothing was learned: all {len(values)} completed trials are worth the same, {values_text(values[0], metrics)}"
    )


def values_text(values: Sequence[float], metrics: Sequence[str]) -> str:
    """Return ``val/map 0.4685, cost/images 1200.0000``."""
    return ", ".join(f"{metric} {value:.4f}" for metric, value in zip(metrics, values, strict=True))


def _are_equal(left: Sequence[float], right: Sequence[float]) -> bool:
    # The mean over seeds is not rounded everywhere alike.
    return all(math.isclose(*pair, rel_tol=1e-9, abs_tol=1e-12) for pair in zip(left, right, strict=True))


def counts(rows: Iterable[Row]) -> dict[str, int]:
    return dict(Counter(row.status for row in rows))


def spent(rows: Iterable[Row]) -> dict[str, float]:
    """Return the epochs, and each kind of cost, over all rows."""
    sums: dict[str, float] = {"epochs": 0.0}
    for row in rows:
        for name, amount in {"epochs": float(row.outcome.epochs), **row.outcome.cost}.items():
            sums[name] = sums.get(name, 0.0) + amount
    return sums


def saved(rows: Iterable[Row], planned_epochs: Callable[[Row], int | None]) -> dict[str, float]:
    """Return what the pruned trials would have cost on top, had each gone on at its own cost per epoch to its planned end."""
    sums: dict[str, float] = {}
    for row in rows:
        planned = planned_epochs(row)
        if row.status != "pruned" or planned is None or not row.outcome.epochs:
            continue
        left = max(0, planned - row.outcome.epochs)
        for name, amount in {"epochs": float(row.outcome.epochs), **row.outcome.cost}.items():
            sums[name] = sums.get(name, 0.0) + amount / row.outcome.epochs * left
    return sums


def write_csv(path: Path, rows: Sequence[Row], metrics: Sequence[str] = (), front: Collection[int] = ()) -> None:
    """Write the whole table, atomically: a reader sees the old one or the new one. Of several ``metrics`` each has a column at
    the end, and one tells the trials of the Pareto ``front``."""
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    several = [*(f"objective_{metric}" for metric in metrics), "pareto_front"] if len(metrics) > 1 else []
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*FIRST_COLUMNS, *(f"param_{name}" for name in names), *LAST_COLUMNS, *several])
    for row in rows:
        outcome = row.outcome
        values = [*map(_cell, row.values or [None] * len(metrics)), int(row.number in front)] if several else []
        writer.writerow([
            row.number, row.status, _cell(_final_map(row)),
            _cell(outcome.final_loss), *(_cell(row.params.get(name)) for name in names), outcome.epochs, _cell(row.cost),
            f"{outcome.seconds:.1f}", _cell(outcome.pruned_at), outcome.reason or "", _cell(outcome.seed),
            outcome.run_folder or "", outcome.mlflow_run_id or "", _cell(outcome.final_objective), *values,
        ])  # fmt: skip
    write_whole(path, text.getvalue())


def _final_map(row: Row) -> float | None:
    """Return what the column ``final_map`` holds: the value of a run that says nothing of its metrics, as another program's."""
    outcome = row.outcome
    return row.value if outcome.final_map is None and outcome.final_objective is None else outcome.final_map


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value
