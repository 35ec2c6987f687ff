"""What a sweep searches: from ``hydra.sweeper.params`` and the command line to Optuna's distributions, and from a trial's
parameters back to overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution

from hydra_plugins.winnow_sweeper._distribution import SYNTAX, allowed, distribution_of, stored_value
from winnow.config.values import one_line, override_text, parse_override, plain, read_choice, same
from winnow.errors import ConfigError
from winnow.masking import has_secret


@dataclass(frozen=True)
class SearchSpace:
    """``distributions`` by key, prefix included (``+model.depth``); ``fixed_overrides`` are the lines that every trial gets,
    in the order given, to stand before ``overrides(trial.params)``; ``fixed_keys`` are the keys these set."""

    distributions: dict[str, BaseDistribution]
    fixed_overrides: tuple[str, ...] = ()
    fixed_keys: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, params: Mapping[str, Any] | None, arguments: list[str]) -> Self:
        """Return the space of ``params`` with the command line's ``arguments`` on top, which win.

        Raises ConfigError naming every wrong entry: as ``hydra.sweeper.params.KEY=VALUE``, or as the argument was
        typed.
        """
        mistakes: list[str] = []
        given = _entries([(line, f"hydra.sweeper.params.{line}") for line in _lines(params, mistakes)], mistakes)
        typed = _entries([(line, f"the argument {line!r}") for line in arguments], mistakes)
        mistakes += [*_conflicts(given), *_conflicts(typed)]
        taken = {entry.key for entry in typed}
        entries = [entry for entry in given if entry.key not in taken] + typed
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        # Of two searches of one key, as x=… and ++x=…, the last counts, as it does for values in Hydra.
        searched = {entry.key: (entry.name, entry.distribution) for entry in entries if entry.distribution is not None}
        fixed = [entry for entry in entries if entry.distribution is None]
        return cls(
            dict(searched.values()),
            tuple(entry.line for entry in fixed),
            frozenset(entry.key for entry in fixed if not entry.override.is_delete()),
        )

    def overrides(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Return a trial's ``params`` as override lines that Hydra reads as exactly the same values.

        Parameters that are not of this space (a ``custom_search_space`` added them) are written as upstream does,
        strings as they are where Hydra can read them. Raises ConfigError if one of these is also a fixed key, or can't
        be written.
        """
        lines = []
        for name, stored in params.items():
            if name not in self.distributions and bare(name) in self.fixed_keys:
                raise ConfigError(
                    f"{name} is suggested by custom_search_space and also fixed for every trial; choose one"
                )
            try:
                text = self._text(name, stored)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None
            lines.append(f"{name}={text}")
        return tuple(lines)

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's ``params`` as the values that its config holds, by key without prefix."""
        return {
            bare(name): read_choice(stored) if self._is_choice_text(name, stored) else stored
            for name, stored in params.items()
        }

    def name_of(self, key: str) -> str | None:
        """Return the parameter that ``key`` means, with or without its prefix; None if it is not searched."""
        return next((name for name in self.distributions if bare(name) == bare(key)), None)

    def stored(self, name: str, value: Any) -> Any:
        """Return ``value`` as the study holds it for parameter ``name``. Raises ValueError, saying what is allowed, if
        it is no part of its distribution.
        """
        return stored_value(self.distributions[name], value)

    def matching(self, study: Mapping[str, BaseDistribution]) -> Self:
        """Return this space with its choices written as in ``study`` (distributions by name, from its trials) wherever
        they are the same values in the same order, so that other quotes in the YAML don't make another parameter.
        """
        return replace(
            self, distributions={n: _with_stored_choices(study.get(n), d) for n, d in self.distributions.items()}
        )

    def require_grid(self) -> None:
        """Raise ConfigError naming the parameters that have no end of values, if there are any: a grid can't have them."""
        endless = [
            f"{name}: {allowed(distribution)} has no end of values; a grid needs choice(...) or range(...)"
            for name, distribution in self.distributions.items()
            if not isinstance(distribution, CategoricalDistribution) and getattr(distribution, "step", None) is None
        ]
        if endless:
            raise ConfigError("\n".join(endless))

    def words(self) -> str:
        """Return all that is searched in one line: ``x=choice(1, 2) y=interval(0.0, 1.0)``."""
        return " ".join(f"{name}={allowed(distribution)}" for name, distribution in self.distributions.items())

    def _text(self, name: str, stored: Any) -> str:
        if self._is_choice_text(name, stored):
            return str(stored)
        if name not in self.distributions and isinstance(stored, str) and _is_value(stored):
            # hydra-optuna-sweeper pastes what an extender suggests, and configs written for it rely on "[16,32]" being a list.
            return stored
        return override_text(stored)

    def _is_choice_text(self, name: str, stored: object) -> bool:
        return isinstance(self.distributions.get(name), CategoricalDistribution) and isinstance(stored, str)


def _is_value(text: str) -> bool:
    try:
        return not parse_override(f"key={text}").is_sweep_override()
    except HydraException:
        return False


def bare(key: str) -> str:
    """Return ``key`` without the prefixes ``+``, ``++`` and ``~``."""
    return key.lstrip("+~")


@dataclass(frozen=True)
class _Entry:
    line: str
    where: str
    override: Override
    distribution: BaseDistribution | None

    @property
    def name(self) -> str:
        return self.override.get_key_element()

    @property
    def key(self) -> str:
        return bare(self.name)


def _lines(params: Mapping[str, Any] | None, mistakes: list[str]) -> list[str]:
    """Return ``params`` as override lines: text stays what it is, Hydra's syntax; other YAML values are written by value."""
    if isinstance(params, DictConfig):
        params = OmegaConf.to_container(params, resolve=True)  # type: ignore[assignment]
    lines = []
    for key, value in (params or {}).items():
        try:
            _require_no_nested_sweep(value)
            text = value if isinstance(value, str) else override_text(value)
        except ValueError as error:
            mistakes.append(f"hydra.sweeper.params.{key}={value!r}: {error}")
            continue
        lines.append(key if key.startswith("~") and value in (None, "") else f"{key}={text}")
    return lines


def _require_no_nested_sweep(value: object) -> None:
    # `training: {lr: choice(1, 2)}` would be a dict that holds the string "choice(1, 2)".
    leaves = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else []
    for leaf in leaves:
        _require_no_nested_sweep(leaf)
        if isinstance(leaf, str) and _is_sweep(leaf):
            raise ValueError(f"{leaf} stands inside a value; params are flat, one line per dotted key")


def _is_sweep(text: str) -> bool:
    try:
        return parse_override(f"key={text}").is_sweep_override() and "(" in text
    except HydraException:
        return False


def _entries(lines: list[tuple[str, str]], mistakes: list[str]) -> list[_Entry]:
    entries = []
    for line, where in lines:
        try:
            override = parse_override(line)
            distribution = distribution_of(override) if override.is_sweep_override() else None
            if distribution is None:
                plain(override.value())
            if has_secret(line) and "${" not in line:
                raise ValueError(
                    "holds a secret, and a study records what it searches; let it stand with tracking, or in conf/"
                )
        except HydraException as error:
            mistakes.append(f"{where} can't be read: {one_line(error)}; allowed: {SYNTAX}")
        except ValueError as error:
            message = str(error)
            mistakes.append(f"{where}: {message[:1].lower()}{message[1:]}")
        else:
            entries.append(_Entry(line, where, override, distribution))
    return entries


def _conflicts(entries: list[_Entry]) -> list[str]:
    searched = {entry.key: entry for entry in entries if entry.distribution is not None}
    return [
        f"{searched[entry.key].where}: {entry.key} is searched and also fixed by {entry.line}; give one of the two"
        for entry in entries
        if entry.distribution is None and not entry.override.is_delete() and entry.key in searched
    ]


def _with_stored_choices(study: BaseDistribution | None, ours: BaseDistribution) -> BaseDistribution:
    if not isinstance(study, CategoricalDistribution) or not isinstance(ours, CategoricalDistribution):
        return ours
    try:
        theirs = [read_choice(choice) for choice in study.choices]
    except ValueError:
        return ours
    return study if same(theirs, [read_choice(choice) for choice in ours.choices]) else ours
