"""The dry run of a sweep: what it would run and its worst-case cost, composed and validated; starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection

from hydra_plugins.winnow_sweeper._space import SearchSpace
from hydra_plugins.winnow_sweeper._trials_file import ExplicitTrial
from winnow.config.values import one_line
from winnow.errors import WinnowError
from winnow.sweep.outcome import OVERRIDES

Config = dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """One line of the table: ``what`` is ``trial 0``, ``trial 1 (line 3)`` or ``choice``; ``error`` is why it would fail."""

    what: str
    overrides: tuple[str, ...]
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
        return [f"{row.what}: {' '.join(row.overrides)}: {row.error}" for row in self.rows if row.error]


def dry_run(
    space: SearchSpace,
    explicit: Sequence[ExplicitTrial],
    sampler: optuna.samplers.BaseSampler,
    directions: Sequence[str],
    n_trials: int,
    num_seeds: int,
    compose: Callable[[tuple[str, ...]], Config],
    validate: Callable[[Config], None],
    extend: Callable[[optuna.Trial], None] | None = None,
    num_sampled: int = 5,
) -> DryRun:
    """Compose and validate every explicit trial, the first ``num_sampled`` of the sampler, and each choice of the space by
    itself on the config without other parameters.

    ``compose`` makes the plain config of a trial's lines, the fixed ones included; ``validate`` raises for one that can't run;
    ``extend`` is the study's ``custom_search_space``. ``sampler`` draws in a study of its own, in memory.
    """
    rows = [
        _planned(what, lines, space, compose, validate)
        for what, lines in (
            *_trials(space, explicit, sampler, directions, n_trials, extend, num_sampled),
            *_choices(space),
        )
    ]
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
) -> Iterator[tuple[str, tuple[str, ...]]]:
    study = optuna.create_study(
        sampler=sampler, directions=[StudyDirection[direction.upper()] for direction in directions]
    )
    for trial in explicit:
        study.enqueue_trial(trial.params, user_attrs={OVERRIDES: list(trial.overrides)})
    for number in range(min(n_trials, len(explicit) + num_sampled)):
        asked = study.ask(fixed_distributions=space.distributions)
        if extend is not None:
            extend(asked)
        lines = space.overrides(asked.params)
        if number < len(explicit):
            own = explicit[number]
            yield f"trial {number} (line {own.line})", (*lines, *own.overrides)
        else:
            yield f"trial {number}", lines


def _choices(space: SearchSpace) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, distribution in space.distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            for choice in distribution.choices:
                yield "choice", space.overrides({name: choice})


def _planned(
    what: str,
    lines: tuple[str, ...],
    space: SearchSpace,
    compose: Callable[[tuple[str, ...]], Config],
    validate: Callable[[Config], None],
) -> PlannedRun:
    try:
        config = compose((*space.fixed_overrides, *lines))
        validate(config)
    except (HydraException, OmegaConfBaseException, WinnowError) as error:
        return PlannedRun(what, lines, error=one_line(error) if isinstance(error, HydraException) else str(error))
    epochs, subset = (_whole(_training(config).get(key)) for key in ("max_epochs", "subset_size"))
    images = None if epochs is None or subset is None else epochs * subset
    return PlannedRun(what, lines, epochs, images)


def _training(config: Config) -> Mapping[str, Any]:
    training = config.get("training")
    return training if isinstance(training, Mapping) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _worst(rows: Sequence[PlannedRun], field: str) -> int | None:
    costs = [getattr(row, field) for row in rows if row.error is None]
    known = [cost for cost in costs if cost is not None]
    return max(known) if known and len(known) == len(costs) else None
