"""A sweep's report, while it runs and at its end: console, ``trials.csv``, and the study's own tracked run."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from winnow.sweep.outcome import Outcome
from winnow.sweep.stored_study import StoredStudy
from winnow.sweep.table import Row, counts, ranking, rows_of, saved, spent, write_csv

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
        self._metric = metric
        self._planned_epochs = planned_epochs
        self._is_eliminated = is_eliminated
        self._tracker = tracker
        self._common = set(common)
        self._plots = plots
        self._began: dict[int, tuple[float, int]] = {}
        self._next_look = 0.0
        self._live: Live | None = None
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
        value = (
            "" if not outcome.values else f"  {self._metric} " + ", ".join(f"{value:.4f}" for value in outcome.values)
        )
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
        best = self._best()
        shown = f"best {best.value:.4f} (trial {best.number})" if best is not None else "no best yet"
        epochs, less = spent(self.rows)["epochs"], saved(self.rows, self._planned_epochs).get("epochs", 0.0)
        return f"{len(self.rows)}/{self._n_trials}: {ended}; {shown}; {epochs:.0f} epochs spent, {less:.0f} saved by pruning"

    def conclude(self, reason: str | None, next_commands: Sequence[str]) -> None:
        """Show the final ranking, draw the plots, and say what to type next."""
        self._write()
        best = ranking(self.rows, self._maximize())
        if best:
            with logging_refusal("the ranking"):
                CONSOLE.print(ranking_table(best[:_SHOWN], self._metric))
        if not self.rows:
            logger.info("no trial has ended yet")
        logger.info("%s; %s", reason or "all trials are done", self.summary() if self.rows else "nothing to show")
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

        with logging_refusal("plots"):
            return write_plots(self._study, self._folder / "plots")
        return []

    def _maximize(self) -> bool:
        return self._study.directions[0] == optuna.study.StudyDirection.MAXIMIZE

    def _best(self) -> Row | None:
        return next(iter(ranking(self.rows, self._maximize())), None)

    def _read(self) -> None:
        with naming(f"study {self._study.study_name!r}"):
            self.rows = rows_of(self._study.get_trials(deepcopy=False), self._is_eliminated, unlisted_in(self._study))

    def _write(self) -> None:
        self._read()
        try:
            write_csv(self._folder / "trials.csv", self.rows)
        except OSError as error:
            logger.error("trials.csv was not written, and is tried again after the next trial: %s", error)

    def _track(self) -> None:
        less = saved(self.rows, self._planned_epochs)
        numbers = {
            **{f"trials/{status}": float(count) for status, count in counts(self.rows).items()},
            **{f"cost/{name}": amount for name, amount in spent(self.rows).items()},
            **{f"cost_saved/{name}": amount for name, amount in less.items()},
        }
        best = self._best()
        if best is not None and best.value is not None:
            numbers[f"best/{self._metric.removeprefix('val/')}"] = best.value
            self._tracker.set_tags({"winnow.best_trial": str(best.number)})
        self._tracker.log_metrics(numbers, len(self.rows))

    def _table(self, running: Sequence[FrozenTrial], elsewhere: int) -> Table:
        table = Table(title=f"{self._study.study_name}  {self.summary()}", title_justify="left")
        for column in ("trial", "epoch", self._metric, "eta", "parameters"):
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


def ranking_table(rows: Sequence[Row], metric: str) -> Table:
    table = Table(title="ranking", title_justify="left")
    for column in ("", "trial", metric, "epochs", "parameters"):
        table.add_column(column, overflow="fold")
    for place, row in enumerate(rows, start=1):
        table.add_row(str(place), str(row.number), f"{row.value:.4f}", str(row.outcome.epochs), _words(row.params))
    return table


def study_lines(stored: StoredStudy) -> list[Table | str]:
    """Return all that ``winnow study`` prints: the trials, the best, what runs."""
    rows = stored.rows()
    table = Table(title=str(stored.description["study_name"]), title_justify="left")
    for column in ("trial", "status", stored.metric, "epochs", "seconds", "parameters", "reason"):
        table.add_column(column, overflow="fold")
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4f}"
        cells = (str(row.number), row.status, value, str(row.outcome.epochs), f"{row.outcome.seconds:.0f}")
        table.add_row(*cells, _words(row.params), row.outcome.reason or "")
    running = stored.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ended = {row.number for row in rows}
    lines = [
        f"runs: trial {trial.number}, epoch {trial.last_step or 0}, {_words(trial.params)}"
        for trial in running
        if trial.number not in ended
    ]
    best = ranking(rows, stored.maximize)[:1]
    return [
        table,
        *lines,
        *(f"best: trial {row.number}, {stored.metric} {row.value:.4f}, {row.outcome.run_folder}" for row in best),
    ]


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
