"""One searched key: from Hydra's sweep syntax to an Optuna distribution, in words, and what values it allows."""

from __future__ import annotations

import logging
import math
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from winnow.config.values import override_text, plain, read_choice, same, stored_choices

logger = logging.getLogger(__name__)

SYNTAX = "choice(a, b), range(1, 9), interval(0.0, 1.0), int(interval(1, 8)), tag(log, interval(1e-5, 1e-2)) or a plain value"


def distribution_of(override: Override) -> BaseDistribution:
    """Return the distribution of a sweep override. Raises ValueError, saying what is allowed, if it has none."""
    sweep = override._value
    if override.is_delete():
        raise ValueError("a deletion can't be searched")
    if isinstance(sweep, Glob):
        raise ValueError("glob(...) can't be searched; list the choices, as choice(a, b)")
    assert isinstance(sweep, ChoiceSweep | RangeSweep | IntervalSweep)
    _check_tags(sweep)
    if isinstance(sweep, IntervalSweep):
        _check_interval(sweep)
        return create_optuna_distribution_from_override(override)
    if sweep.shuffle:
        # Shuffled choices would be other choices at each start, and Optuna refuses to continue such a study.
        logger.info("%s: shuffle(...) is left out, a sampler draws in its own order", override.input_line)
        sweep.shuffle = False
    if isinstance(sweep, ChoiceSweep):
        _check_choices([plain(element) for element in sweep.list])
        return CategoricalDistribution(stored_choices(sweep.list))
    distribution = create_optuna_distribution_from_override(override)
    if isinstance(distribution, CategoricalDistribution):
        _check_choices(list(distribution.choices))
    return distribution


def allowed(distribution: BaseDistribution) -> str:
    """Return ``distribution`` in words: ``log(1e-05, 0.01)``, ``int(1, 8)``, ``range(0.0, 0.5, step 0.1)``, ``choice(a,
    [1,2])``.
    """
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(override_text(read_choice(choice)) for choice in distribution.choices)})"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    bounds = f"{distribution.low}, {distribution.high}"
    is_int = isinstance(distribution, IntDistribution)
    if distribution.log:
        return f"int log({bounds})" if is_int else f"log({bounds})"
    if distribution.step not in (None, 1 if is_int else None):
        return f"{'int ' * is_int}range({bounds}, step {distribution.step})"
    return f"int({bounds})" if is_int else f"interval({bounds})"


def stored_value(distribution: BaseDistribution, value: Any) -> Any:
    """Return ``value`` as a study holds it. Raises ValueError if ``distribution`` does not allow it.

    A whole number is fine for an interval of floats; nothing else is converted: ``"0.01"`` is no number, 16.0 no int.
    """
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            if same(read_choice(choice), value):
                return choice
        raise ValueError(f"not a choice; allowed: {allowed(distribution)}")
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    number = float(value) if type(value) is int and isinstance(distribution, FloatDistribution) else value
    kind = int if isinstance(distribution, IntDistribution) else float
    if type(number) is not kind:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"a {type(value).__name__}, must be {wanted}; allowed: {allowed(distribution)}")
    if not distribution.low <= number <= distribution.high:
        raise ValueError(f"out of range; allowed: {allowed(distribution)}")
    if distribution.step is not None:
        steps = (number - distribution.low) / distribution.step
        if abs(steps - round(steps)) > 1e-8:
            raise ValueError(f"between two steps; allowed: {allowed(distribution)}")
    return number


def _check_tags(sweep: ChoiceSweep | RangeSweep | IntervalSweep) -> None:
    unknown = sorted(sweep.tags - {"log"})
    if unknown:
        raise ValueError(f"unknown tag {unknown[0]!r}; allowed: log")
    if "log" in sweep.tags and not isinstance(sweep, IntervalSweep):
        raise ValueError("the tag log is for intervals, as in tag(log, interval(1e-5, 1e-2))")


def _check_interval(sweep: IntervalSweep) -> None:
    low, high = sweep.start, sweep.end
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"the bounds of an interval must be finite, got {low} and {high}")
    if low > high:
        raise ValueError(f"the lower bound {low} is above the upper bound {high}; give interval(low, high)")
    if "log" in sweep.tags and low <= 0:
        raise ValueError(f"the lower bound of a logarithmic interval must be above 0, got {low}")


def _check_choices(values: list[Any]) -> None:
    for index, value in enumerate(values):
        if any(same(value, other) for other in values[:index]):
            raise ValueError(f"the choice {override_text(value)} is given twice; each must differ")
