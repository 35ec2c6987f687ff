"""Explicit trials from a file, held against the search space and the config before anything starts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException

from hydra_plugins.winnow_sweeper._space import SearchSpace
from hydra_plugins.winnow_sweeper._trials_rows import Cell, Row, RowsError, read_rows
from winnow.config.compose import COMPOSING
from winnow.config.from_file import decides_what_runs
from winnow.config.values import one_line, override_text, parse_override
from winnow.errors import ConfigError, WinnowError
from winnow.masking import has_secret, masked
from winnow.sweep.listed import content_of

logger = logging.getLogger(__name__)

Compose = Callable[[tuple[str, ...]], object]
Mistakes = list[tuple[int, str]]
_LONGEST = 500


@dataclass(frozen=True)
class ExplicitTrial:
    """``params`` are what ``study.enqueue_trial`` takes, in the study's own writing; keys of the space that are missing are
    left to the sampler. ``overrides`` are lines for this trial alone, to stand after all others. ``line`` is its place in the
    file."""

    params: dict[str, Any]
    overrides: tuple[str, ...]
    line: int


def read_trials(path: Path, space: SearchSpace, compose: Compose) -> list[ExplicitTrial]:
    """Read the trials of ``path`` (a list of ``{key: value}`` in JSON or YAML, or CSV with a header of keys).

    Keys of ``space`` become parameters, other keys overrides of that trial; these are tried by ``compose``, which gets
    all lines of such a trial and raises for what Hydra does not know. Raises ConfigError naming every mistake as
    ``FILE, line N: …``.
    """
    try:
        rows = read_rows(path)
    except RowsError as error:
        raise ConfigError(_report(path, error.mistakes)) from None
    mistakes: Mistakes = []
    trials = []
    for row in rows:
        params = _params(row, space, mistakes)
        extras = _extras(row, space, mistakes)
        if extras:
            given = (*space.fixed_overrides, *space.overrides(params))
            mistakes += _composed_mistakes(given, extras, row.line, compose)
        if not row.cells:
            mistakes.append((row.line, "a trial without any key"))
        trials.append(ExplicitTrial(params, tuple(line for _, line in extras), row.line))
    if mistakes:
        raise ConfigError(_report(path, sorted(mistakes)))
    return trials


def without_repeats(path: Path, trials: Sequence[ExplicitTrial], space: SearchSpace) -> list[ExplicitTrial]:
    """Return ``trials`` without those that leave nothing to the sampler and equal an earlier one, which are warned of: a list
    repeats nothing, seeds do."""
    first: dict[str, int] = {}
    kept = []
    for trial in trials:
        content = content_of(trial.params, trial.overrides)
        if content in first and trial.params.keys() >= space.distributions.keys():
            logger.warning("%s, line %d: the same trial as in line %d; it runs once", path, trial.line, first[content])
            continue
        first.setdefault(content, trial.line)
        kept.append(trial)
    return kept


def _params(row: Row, space: SearchSpace, mistakes: Mistakes) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for cell in row.cells:
        name = space.name_of(cell.key)
        if name in params:
            mistakes.append((cell.line, f"{cell.key} is given twice in one trial, with and without its prefix"))
        elif name is not None:
            try:
                params[name] = space.stored(name, cell.value)
            except ValueError as error:
                mistakes.append((cell.line, f"{cell.key}={_shown(cell.value)}: {error}"))
    return params


def _extras(row: Row, space: SearchSpace, mistakes: Mistakes) -> list[tuple[int, str]]:
    """Return the line in the file and the override of each key that is not searched."""
    extras = []
    for cell in row.cells:
        if space.name_of(cell.key) is None:
            try:
                extras.append((cell.line, _override(cell)))
            except ValueError as error:
                mistakes.append((cell.line, f"{cell.key}={_shown(cell.value)}: {error}"))
    return extras


def _override(cell: Cell) -> str:
    line = f"{cell.key}={override_text(cell.value)}"
    if has_secret(line):
        raise ValueError(
            "it holds a secret, and a study records its trials; give it on the command line, for all of them"
        )
    try:
        is_key = parse_override(line).get_key_element() == cell.key and not cell.key.startswith("~")
    except HydraException:
        is_key = False
    if not is_key:
        raise ValueError(f"{cell.key!r} is no key; allowed: a key of the search space or of the config")
    if decides_what_runs(line):
        raise ValueError("a list of trials may not decide what is executed; give it on the command line")
    return line


def _composed_mistakes(
    given: tuple[str, ...], extras: list[tuple[int, str]], row_line: int, compose: Compose
) -> Mistakes:
    whole = _failure(compose, (*given, *(override for _, override in extras)))
    if whole is None:
        return []
    if len(extras) == 1:
        return [(extras[0][0], f"{extras[0][1]}: {whole}")]
    # Each line alone tells whose fault it is; what fails only together is the whole trial's.
    alone = [(at, f"{line}: {failure}") for at, line in extras if (failure := _failure(compose, (*given, line)))]
    return alone or [(row_line, f"this trial can't be composed: {whole}")]


def _shown(value: Any) -> str:
    return masked(json.dumps(value, ensure_ascii=False, default=str))


def _failure(compose: Compose, overrides: tuple[str, ...]) -> str | None:
    try:
        compose(overrides)
    except (*COMPOSING, WinnowError) as error:
        return one_line(error)
    return None


def _report(path: Path, mistakes: Mistakes) -> str:
    bounded = [(line, text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …") for line, text in mistakes]
    return "\n".join(f"{path}, line {line}: {text}" if line else f"{path}: {text}" for line, text in bounded)
