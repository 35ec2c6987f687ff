"""A sweep's report, while it runs and at its end: console, ``trials.csv``, and the study's own tracked run."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.live import Live
from rich.table import Table

from winnow.console import CONSOLE
from winnow.protocols import Tracker
from winnow.reading import naming
from winnow.sweep.listed import unlisted_in
from winnow.sweep.luck import luck_lines
from winnow.sweep.objectives import Objectives, pareto_front
from winnow.sweep.outcome import Outcome
from winnow.sweep.stored_study import StoredStudy
from winnow.sweep.table import (
    Row,
    counts,
    ranking,
    rows_of,
    saved,
    spent,
    values_text,
    why_nothing_was_learned,
    write_csv,
)  # fmt: skip

logger = logging.getLogger(__name__)

_LIVE_SECONDS = 2.0
_SHOWN = 10


class StudyReport:
    """Shows ``study`` to people. ``common`` are the overrides that all trials share, ``planned_epochs`` what a run that nobody
    prunes costs (None where unknown), ``tracker`` the study's own, entered by the caller; ``plots`` draws
    Optuna's at the end."""

    def __init__(
        self, study: optuna.Study, folder: Path, n_trials: int, metric: str, planned_epochs: Callable[[Row], int | None],
        is_eliminated: Callable[[FrozenTrial], bool], tracker: Tracker, common: Sequence[str], plots: bool,
    ) -> None:  # fmt: skip
        self._study = study
        self._folder = folder
        self._n_trials = n_trials
        self.objectives = Objectives.of(study, metric)
        self._planned_epochs = planned_epochs
        self._is_eliminated = is_eliminated
        self._tracker = tracker
        self._common = set(common)
        self._plots = plots
        self._began: dict[int, tuple[float, int]] = {}
        self._next_look = 0.0
        self._live: Live | None = None
        self._front: Collection[int] = ()
        self.rows: list[Row] = []

    def open(self, has_console: bool = True) -> None:
        """Start the live table. ``has_console`` is False if a run in this process prints, and perhaps a debugger asks,
        where the table would be.
        """
        self._read()
        if CONSOLE.is_terminal and has_console:
            self._live = Live(console=CONSOLE, refresh_per_second=4, transient=True)
            self._live.start()

    def close(self) -> None:
        """Take the live table away; asks the storage nothing, which may be gone."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def started(self, name: str, overrides: Sequence[str]) -> None:
        own = [_short_parameter(text) for text in overrides if text not in self._common]
        logger.info("trial %s starts: %s", name, "  ".join(own))

    def finished(self, number: int, outcome: Outcome) -> None:
        self._began.pop(number, None)
        self._write()
        value = f"  {values_text(outcome.values, self.objectives.names)}" if outcome.values else ""
        reason = f": {outcome.reason}" if outcome.reason else ""
        level = logging.ERROR if outcome.status == "failed" else logging.INFO
        logger.log(level, "trial %d %s after %d epochs, %.0f s%s%s", number, outcome.status, outcome.epochs, outcome.seconds,
                   value, reason)  # fmt: skip
        if self._live is None:  # else the table's title says so
            logger.info(self.summary())
        self._track()

    def tick(self, running: Sequence[int], elsewhere: int) -> None:
        if self._live is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LIVE_SECONDS
        trials = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
        self._live.update(
            self._table([trials[number] for number in sorted(set(running)) if number in trials], elsewhere)
        )

    def summary(self) -> str:
        """Return one line: how many ended how, the best so far, what was spent and saved."""
        ended = ", ".join(f"{count} {status}" for status, count in counts(self.rows).items()) or "none ended yet"
        shown = self._best_in_words()
        epochs, less = spent(self.rows)["epochs"], saved(self.rows, self._planned_epochs).get("epochs", 0.0)
        return f"{len(self.rows)}/{self._n_trials}: {ended}; {shown}; {epochs:.0f} epochs spent, {less:.0f} saved by pruning"

    def conclude(self, reason: str, next_commands: Sequence[str]) -> None:
        """Show the final ranking, draw the plots, and say why the sweep has ended and what to type next."""
        self._write()
        nothing = why_nothing_was_learned(self.rows, self.objectives.names)
        best = ranking(self.rows, self.objectives.maximize[0])
        if nothing is not None:
            logger.warning("%s; a longer training or another search may tell them apart", nothing)
        elif best:
            with logging_refusal("the ranking"):
                CONSOLE.print(ranking_table(best, self.objectives.names, self._front))
        if not self.rows:
            logger.info("no trial has ended yet")
        logger.info("%s; %s", reason, self.summary() if self.rows else "nothing to show")
        self._track()
        self._tracker.log_artifact(self._folder / "trials.csv")
        for path in self._drawn():
            self._tracker.log_artifact(path, "plots")
        for command in next_commands:
            logger.info("next: %s", command)

    def _drawn(self) -> list[Path]:
        if not self._plots:
            return []
        from winnow.sweep.plots import write_plots  # two plotting libraries: not before there is something to draw

        nothing = why_nothing_was_learned(self.rows, self.objectives.names)
        with logging_refusal("plots"):
            return write_plots(self._study, self._folder / "plots", self.objectives.names, nothing)
        return []

    def _best_in_words(self) -> str:
        if why_nothing_was_learned(self.rows, self.objectives.names) is not None:
            return "all are worth the same"
        if self.objectives.are_several:
            return f"{len(self._front)} on the Pareto front"
        best = next(iter(ranking(self.rows, self.objectives.maximize[0])), None)
        return f"best {best.value:.4f} (trial {best.number})" if best is not None else "no best yet"

    def _read(self) -> None:
        with naming(f"study {self._study.study_name!r}"):
            trials, unlisted = self._study.get_trials(deepcopy=False), unlisted_in(self._study)
            self.rows = rows_of(trials, self._is_eliminated, unlisted, len(self._study.directions))
        self._front = pareto_front(self._study)

    def _write(self) -> None:
        self._read()
        try:
            write_csv(self._folder / "trials.csv", self.rows, self.objectives.names, self._front)
        except OSError as error:
            logger.error("trials.csv was not written, and is tried again after the next trial: %s", error)

    def _track(self) -> None:
        less = saved(self.rows, self._planned_epochs)
        numbers = {
            **{f"trials/{status}": float(count) for status, count in counts(self.rows).items()},
            **{f"cost/{name}": amount for name, amount in spent(self.rows).items()},
            **{f"cost_saved/{name}": amount for name, amount in less.items()},
        }
        for place, (name, maximize) in enumerate(zip(self.objectives.names, self.objectives.maximize, strict=True)):
            best = next(iter(ranking(self.rows, maximize, place)), None)
            if best is not None:
                numbers[f"best/{name.removeprefix('val/')}"] = best.values[place]
                if not self.objectives.are_several:
                    alike = why_nothing_was_learned(self.rows, self.objectives.names) is not None
                    self._tracker.set_tags({"winnow.best_trial": "none" if alike else str(best.number)})
        self._tracker.log_metrics(numbers, len(self.rows))

    def _table(self, running: Sequence[FrozenTrial], elsewhere: int) -> Table:
        table = Table(title=f"{self._study.study_name}  {self.summary()}", title_justify="left")
        for column in ("trial", "epoch", self.objectives.names[0], "eta", "parameters"):
            table.add_column(column)
        for trial in running:
            table.add_row(str(trial.number), *self._progress_of(trial), _words(trial.params))
        if elsewhere:
            table.caption = f"running elsewhere: {elsewhere}"
        return table

    def _progress_of(self, trial: FrozenTrial) -> tuple[str, str, str]:
        self._began.setdefault(trial.number, (time.monotonic(), trial.last_step or 0))
        if not trial.intermediate_values:
            return "starts", "", ""
        epoch = max(trial.intermediate_values)
        planned = self._planned_epochs(Row(trial.number, "running", None, dict(trial.params), Outcome("interrupted")))
        began, epochs_before = self._began[trial.number]
        per_epoch = (time.monotonic() - began) / max(1, epoch - epochs_before)
        eta = f"{per_epoch * (planned - epoch):.0f} s" if planned and epoch > epochs_before else ""
        return f"{epoch}/{planned}" if planned else str(epoch), f"{trial.intermediate_values[epoch]:.4f}", eta


@contextlib.contextmanager
def logging_refusal(what: str) -> Iterator[None]:
    """Log an error where the disk refuses ``what`` is written inside: no page or table is worth a sweep."""
    try:
        yield
    except OSError as error:
        CONSOLE.forget()
        logger.error("%s: not written: %s", what, error)


def ranking_table(rows: Sequence[Row], metrics: Sequence[str], front: Collection[int] = ()) -> Table:
    """Return the first of ``rows``, which are ranked; of several ``metrics`` those on the Pareto ``front`` stand before the
    others, and are marked."""
    several = len(metrics) > 1
    table = Table(title=f"Pareto front, by {metrics[0]}" if several else "ranking", title_justify="left")
    for column in ("front" if several else "", "trial", *metrics, "epochs", "parameters"):
        table.add_column(column, overflow="fold")
    for place, row in enumerate(sorted(rows, key=lambda row: several and row.number not in front)[:_SHOWN], start=1):
        mark = _mark(row, front) if several else str(place)
        values = (f"{value:.4f}" for value in row.values)
        table.add_row(mark, str(row.number), *values, str(row.outcome.epochs), _words(row.params))
    return table


def _mark(row: Row, front: Collection[int]) -> str:
    return "*" if row.number in front else ""


def study_lines(stored: StoredStudy) -> list[Table | str]:
    """Return all that ``winnow study`` prints: the trials, the best, what runs."""
    rows, metrics, several = stored.rows(), stored.objectives.names, stored.objectives.are_several
    front = pareto_front(stored.study)
    table = Table(title=str(stored.description["study_name"]), title_justify="left")
    for column in ("trial", "status", *["front"] * several, *metrics, "epochs", "seconds", "parameters", "reason"):
        table.add_column(column, overflow="fold")
    for row in rows:
        values = [f"{value:.4f}" for value in row.values] or [""] * len(metrics)
        mark = [_mark(row, front)] if several else []
        cells = (str(row.number), row.status, *mark, *values, str(row.outcome.epochs), f"{row.outcome.seconds:.0f}")
        table.add_row(*cells, _words(row.params), row.outcome.reason or "")
    running = stored.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ended = {row.number for row in rows}
    lines = [
        f"runs: trial {trial.number}, epoch {trial.last_step or 0}, {_words(trial.params)}"
        for trial in running
        if trial.number not in ended
    ]
    return [table, *lines, *_best_lines(rows, stored, front), *luck_lines(stored, rows)]


def _best_lines(rows: Sequence[Row], stored: StoredStudy, front: Collection[int]) -> list[str]:
    metrics = stored.objectives.names
    nothing = why_nothing_was_learned(rows, metrics)
    if nothing is not None:
        return [nothing]
    if stored.objectives.are_several:
        return [f"Pareto front: trials {', '.join(map(str, sorted(front)))}"] if front else []
    best = ranking(rows, stored.maximize)[:1]
    return [f"best: trial {row.number}, {values_text(row.values, metrics)}, {row.outcome.run_folder}" for row in best]


def _words(params: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def _short_parameter(override: str) -> str:
    """Return ``KEY=VALUE`` with a number that people can read; the exact one is in ``trials.csv``."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.4g}" if len(value) > 8 and "." in value else override
    except ValueError:
        return override
