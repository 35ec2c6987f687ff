"""The definition of a study: what makes two starts of a sweep the same, and in words what differs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from optuna.distributions import check_distribution_compatibility, distribution_to_json, json_to_distribution

from hydra_plugins.winnow_sweeper._distribution import allowed
from hydra_plugins.winnow_sweeper._space import SearchSpace, bare
from winnow.config.moved import added_keys, with_moved_targets
from winnow.errors import ConfigError
from winnow.masking import masked_tree
from winnow.reading import parse_record, reason
from winnow.sweep.trial import SEED_KEY

MAY_CHANGE = (
    "hydra",
    "report",
    "tracking",
    "trusted_targets",
    "data.root",  # a place, and another on each machine of a study
    "data.cache",
    "evaluation.backend",  # the same numbers bit for bit
    "model.attention",  # how the same formula is computed
    "training.num_workers",
    "training.device",
    "training.log_interval",
    "training.save_interval",
    "training.keep_last_n",
    "training.save_every_steps",
    "training.frozen_weights",
    "training.frozen_source",
    "training.resume",
    "training.oom_retry",
)
"""Keys, with all below them, that change where a trial runs and what it leaves behind, not what it finds."""


@dataclass(frozen=True)
class Definition:
    """A study as its trials share it: ``search_space`` holds Optuna's JSON of each distribution, ``base`` the composed config
    by dotted key. Sampler, launcher, ``n_trials`` and ``n_jobs`` are no part of it: they may change."""

    search_space: dict[str, str]
    directions: tuple[str, ...]
    pruner: dict[str, Any] | None
    seeds: tuple[int, ...] | None
    custom_search_space: str | None
    base: dict[str, Any]
    repeat_over: str | None = None

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        base: Mapping[str, Any],
        directions: Iterable[str],
        pruner: Mapping[str, Any] | None,
        seeds: Iterable[int] | None,
        custom_search_space: str | None,
        repeat_over: str | None = None,
    ) -> Self:
        """Build the definition; ``base`` is the composed config with the fixed overrides, as plain values. It is recorded, so
        its secrets are masked."""
        left_out = {*MAY_CHANGE, *(bare(name) for name in space.distributions)}
        if seeds is not None:
            left_out.add(repeat_over or SEED_KEY)
        return cls(
            {name: distribution_to_json(distribution) for name, distribution in space.distributions.items()},
            tuple(directions),
            None if pruner is None else dict(pruner),
            None if seeds is None else tuple(seeds),
            custom_search_space,
            masked_tree(flattened(base, left_out)),
            repeat_over,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what ``to_json`` wrote, in today's names. Raises ConfigError for anything else."""
        try:
            stored = parse_record(cls, text)
            for distribution in stored.search_space.values():
                json_to_distribution(distribution)
            pruner = with_moved_targets(stored.pruner)
            return replace(stored, base=_in_todays_words(stored.base), pruner=pruner)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(f"the study's definition is damaged: {reason(error)}") from error

    def plain(self) -> dict[str, Any]:
        """Return it for people: each searched key in words, everything else as it is."""
        space = {name: allowed(_distribution(self, name)) for name in self.search_space}
        return {**json.loads(self.to_json()), "search_space": space}

    def differences(self, new: Definition) -> list[str]:
        """Return each difference to ``new`` as a line: ``training.max_epochs: 12 in the study, 20 now``."""
        # What one of the two searches is told by the search space alone, and what earlier studies recorded and may change now.
        searched = [*MAY_CHANGE, *(bare(name) for name in (*self.search_space, *new.search_space))]
        searched += [one.repeat_over or SEED_KEY for one in (self, new) if one.seeds is not None]
        directions = ({"hydra.sweeper.direction": list(definition.directions)} for definition in (self, new))
        return [
            *_space_differences(self, new),
            *_changes(*directions),
            *_changes(_settings(self), _settings(new)),
            *_changes(*(flattened(definition.base, searched) for definition in (self, new))),
        ]

    def unacceptable(self, new: Definition) -> list[str]:
        """Return the differences that Optuna itself can't take into a study that has trials, as lines."""
        lines = []
        if self.directions != new.directions:
            lines.append("hydra.sweeper.direction: Optuna keeps the direction a study began with")
        for name in self.search_space.keys() & new.search_space.keys():
            then, now = _distribution(self, name), _distribution(new, name)
            try:
                check_distribution_compatibility(then, now)
            except ValueError:
                lines.append(
                    f"{name}: Optuna can't go on from {allowed(then)} with {allowed(now)}; only the bounds of numbers "
                    "may change"
                )
        return sorted(lines)


def accepted_changes(old: Definition, new: Definition, accept_changes: bool) -> list[str]:
    """Return the differences to record when a study goes on; empty if nothing changed.

    Raises ConfigError listing them if they are not accepted, or if Optuna can't take them even so.
    """
    changed = old.differences(new)
    impossible = old.unacceptable(new) if changed else []
    if impossible:
        raise ConfigError(
            _listed("the study can't go on with what changed:", impossible)
            + "\nundo that, or start a new study beside it with hydra.sweeper.fresh=true"
        )
    if changed and not accept_changes:
        raise ConfigError(
            _listed("this study began with another definition:", changed)
            + "\nundo that; or go on with it, recorded, by hydra.sweeper.accept_changes=true; "
            "or start a new study beside it with hydra.sweeper.fresh=true"
        )
    return changed


def flattened(config: Mapping[str, Any], left_out: Iterable[str] = ()) -> dict[str, Any]:
    """Return ``config`` by dotted key, without the keys in ``left_out`` and all below them; lists are values, and so
    are empty mappings.
    """
    # A group choice stands at its path, or at the package behind the @.
    skipped = {key.rpartition("@")[2].replace("/", ".") for key in left_out}
    flat: dict[str, Any] = {}

    def walk(node: Mapping[Any, Any], prefix: str) -> None:
        for key, value in node.items():
            path = f"{prefix}{key}"
            if path in skipped:
                continue
            if isinstance(value, Mapping) and value:
                walk(value, f"{path}.")
            else:
                flat[path] = value

    walk(config, "")
    return {path: value for path, value in flat.items() if not any(path.startswith(f"{key}.") for key in skipped)}


def _in_todays_words(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded ``base``, masked, with moved targets and, if it is of a run of winnow's, with keys that came later."""
    later = flattened(added_keys(base), MAY_CHANGE) if "budget.name" in base else {}
    return {**later, **masked_tree(with_moved_targets(base))}


def _space_differences(old: Definition, new: Definition) -> list[str]:
    lines = []
    for name in [*old.search_space, *(name for name in new.search_space if name not in old.search_space)]:
        then = allowed(_distribution(old, name)) if name in old.search_space else None
        now = allowed(_distribution(new, name)) if name in new.search_space else None
        if then is None:
            lines.append(f"search space: {name} is new, {now}")
        elif now is None:
            lines.append(f"search space: {name} was {then}, is no longer searched")
        elif then != now:
            lines.append(f"search space: {name} was {then}, is {now}")
    return lines


def _settings(definition: Definition) -> dict[str, Any]:
    return {
        **{f"hydra.sweeper.pruner.{key}": value for key, value in flattened(definition.pruner or {}).items()},
        "hydra.sweeper.seeds": None if definition.seeds is None else list(definition.seeds),
        "hydra.sweeper.repeat_over": definition.repeat_over,
        "hydra.sweeper.custom_search_space": definition.custom_search_space,
    }


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        then, now = (_shown(side[key]) if key in side else "absent" for side in (old, new))
        if then != now:
            lines.append(f"{key}: {then} in the study, {now} now")
    return lines


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _distribution(definition: Definition, name: str) -> Any:
    return json_to_distribution(definition.search_space[name])


def _listed(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)])
