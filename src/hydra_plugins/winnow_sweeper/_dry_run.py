"""The dry run of a sweep: what it would run and its worst-case cost, composed and checked; starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection

from hydra_plugins.winnow_sweeper._plan import ComposedRun
from hydra_plugins.winnow_sweeper._space import SearchSpace
from hydra_plugins.winnow_sweeper._trials_file import ExplicitTrial
from hydra_plugins.winnow_sweeper._unvisited import UnvisitedSampler
from winnow.config.compose import COMPOSING
from winnow.config.values import one_line
from winnow.errors import ConfigError, WinnowError
from winnow.sweep.outcome import OVERRIDES

CHOICE, VALUE, BOUND, EXAMPLE = "choice", "value", "bound", "example"
MOST_VALUES = 16
"""Of a range with no more values than this each is tried by itself, of a larger one both ends."""


@dataclass(frozen=True)
class PlannedRun:
    """One line of the table: ``what`` is ``trial 0``, ``trial 1 (line 3)``, ``example`` (what the sampler may propose), or, of a
    key's values, each by itself, ``choice``, ``value`` or ``bound``; ``error`` is why it would fail."""

    what: str
    overrides: tuple[str, ...]
    run: ComposedRun | None = None
    epochs: int | None = None
    images: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class DryRun:
    """``epochs`` and ``images`` are of the whole search if every trial cost as much as the dearest one composed here and none
    were pruned; None where a config does not say."""

    rows: tuple[PlannedRun, ...]
    num_runs: int
    epochs: int | None
    images: int | None

    @property
    def errors(self) -> list[str]:
        """Return each error once, with the run of the fewest overrides that has it."""
        found: dict[str, list[PlannedRun]] = {}
        for row in self.rows:
            if row.error:
                found.setdefault(row.error, []).append(row)
        shortest = {error: min(rows, key=lambda row: len(row.overrides)) for error, rows in found.items()}
        return [
            f"{row.what}: {' '.join(row.overrides)}: {error}"
            + (f" (and so {len(found[error]) - 1} more)" if len(found[error]) > 1 else "")
            for error, row in shortest.items()
        ]


def dry_run(
    space: SearchSpace,
    explicit: Sequence[ExplicitTrial],
    sampler: optuna.samplers.BaseSampler,
    directions: Sequence[str],
    n_trials: int,
    num_seeds: int,
    compose: Callable[[tuple[str, ...]], ComposedRun],
    refusals: Callable[[Sequence[ComposedRun]], Sequence[str | None]],
    extend: Callable[[optuna.Trial], None] | None = None,
    num_sampled: int = 5,
    num_certain: int = 0,
    default: Mapping[str, Any] | None = None,
) -> DryRun:
    """Compose and check every explicit trial, the first ``num_sampled`` of the sampler, and each value of the space by itself on
    the config without other parameters: a value that is refused there counts as wrong unless a trial that has it would run.

    ``compose`` makes the run of a trial's lines, the fixed ones included; ``refusals`` says of each run why it would be
    refused; ``extend`` is the study's ``custom_search_space``. ``sampler`` draws in a study of its own, in memory: what it draws
    there for the first ``num_certain`` trials it draws in the sweep as well, the others are examples.
    """
    planned = [
        _composed(what, lines, space, compose)
        for what, lines in (
            *_trials(space, explicit, sampler, directions, n_trials, extend, num_sampled, num_certain, default),
            *_values(space),
        )
    ]
    rows = _without_what_runs_beside_others(_checked(planned, refusals))
    num_runs = n_trials * num_seeds
    epochs, images = _worst(rows, "epochs"), _worst(rows, "images")
    return DryRun(
        tuple(rows),
        num_runs,
        None if epochs is None else epochs * num_runs,
        None if images is None else images * num_runs,
    )


def _trials(
    space: SearchSpace,
    explicit: Sequence[ExplicitTrial],
    sampler: optuna.samplers.BaseSampler,
    directions: Sequence[str],
    n_trials: int,
    extend: Callable[[optuna.Trial], None] | None,
    num_sampled: int,
    num_certain: int,
    default: Mapping[str, Any] | None,
) -> Iterator[tuple[str, tuple[str, ...]]]:
    study = optuna.create_study(
        sampler=sampler, directions=[StudyDirection[direction.upper()] for direction in directions]
    )
    if default is not None:
        study.enqueue_trial(dict(default))
    for trial in explicit:
        study.enqueue_trial(trial.params, user_attrs={OVERRIDES: list(trial.overrides)})
    for number in range(min(n_trials, len(explicit) + num_sampled)):
        try:
            asked = study.ask(fixed_distributions=space.distributions)
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            asks = sampler.sampler if isinstance(sampler, UnvisitedSampler) else sampler
            raise ConfigError(f"hydra.sweeper.sampler: {type(asks).__name__} can't propose a trial: {error}") from error
        if extend is not None:
            extend(asked)
        lines = space.overrides(asked.params)
        if number == 0 and default is not None:
            yield "trial 0, the default configuration", lines
        elif number < len(explicit):
            own = explicit[number]
            yield f"trial {number} (line {own.line})", (*lines, *own.overrides)
        else:
            yield f"trial {number}" if number < num_certain else EXAMPLE, lines


def _values(space: SearchSpace) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, distribution in space.distributions.items():
        what, values = _values_of(distribution)
        for value in values:
            yield what, space.overrides({name: value})


def _values_of(distribution: BaseDistribution) -> tuple[str, Sequence[object]]:
    if isinstance(distribution, CategoricalDistribution):
        return CHOICE, distribution.choices
    low, high, step = (getattr(distribution, name) for name in ("low", "high", "step"))
    if step is None or getattr(distribution, "log", False) or (num := round((high - low) / step) + 1) > MOST_VALUES:
        return BOUND, sorted({low, high})
    return VALUE, [distribution.to_external_repr(low + index * step) for index in range(num)]


def _composed(
    what: str, lines: tuple[str, ...], space: SearchSpace, compose: Callable[[tuple[str, ...]], ComposedRun]
) -> PlannedRun:
    try:
        run = compose((*space.fixed_overrides, *lines))
    except WinnowError as error:
        return PlannedRun(what, lines, error=str(error))
    except COMPOSING as error:
        return PlannedRun(what, lines, error=one_line(error) if isinstance(error, HydraException) else str(error))
    epochs, subset = (_whole(_training(run.config).get(key)) for key in ("max_epochs", "subset_size"))
    images = None if epochs is None or subset is None else epochs * subset
    return PlannedRun(what, lines, run, epochs, images)


def _checked(
    planned: Sequence[PlannedRun], refusals: Callable[[Sequence[ComposedRun]], Sequence[str | None]]
) -> list[PlannedRun]:
    errors = iter(refusals([row.run for row in planned if row.run is not None]))
    return [row if row.run is None else replace(row, error=next(errors)) for row in planned]


def _without_what_runs_beside_others(rows: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Leave out a value that is refused by itself where a trial that has it would run, as a model of a family beside its data."""
    alone = (CHOICE, VALUE, BOUND)
    runs = {line for row in rows if row.what not in alone and not row.error for line in row.overrides}
    return [row for row in rows if not (row.error and row.what in alone and runs.issuperset(row.overrides))]


def _training(config: Mapping[str, Any]) -> Mapping[str, Any]:
    training = config.get("training")
    return training if isinstance(training, Mapping) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _worst(rows: Sequence[PlannedRun], field: str) -> int | None:
    costs = [getattr(row, field) for row in rows if row.error is None]
    known = [cost for cost in costs if cost is not None]
    return max(known) if known and len(known) == len(costs) else None
