"""The objectives of a study: their names, which way each is better, and which trials none is better than in all of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import optuna
from optuna.study import StudyDirection

from winnow.errors import ConfigError


@dataclass(frozen=True)
class Objectives:
    """What a study maximises or minimises: one name and one direction per value of a trial, in its order."""

    names: tuple[str, ...]
    maximize: tuple[bool, ...]

    @classmethod
    def of(cls, study: optuna.Study, metric: str) -> Self:
        """Return those of ``study``; ``metric`` names the one of a study that was begun before studies held names."""
        maximize = tuple(direction == StudyDirection.MAXIMIZE for direction in study.directions)
        names = study.metric_names
        if isinstance(names, list) and len(names) == len(maximize) and all(isinstance(name, str) for name in names):
            return cls(tuple(names), maximize)
        return cls((metric,) if len(maximize) == 1 else numbered(len(maximize)), maximize)

    @property
    def are_several(self) -> bool:
        return len(self.names) > 1

    def place(self, name: str | None) -> int:
        """Return the place of the objective ``name``, the first for None. Raises ConfigError for a name that there is not."""
        if name is None:
            return 0
        if name not in self.names:
            raise ConfigError(f"the study has no objective {name!r}; allowed: {', '.join(self.names)}")
        return self.names.index(name)


def numbered(num: int) -> tuple[str, ...]:
    """Return names for several objectives of a program that gives none."""
    return tuple(f"value {place}" for place in range(num))


def pareto_front(study: optuna.Study) -> Collection[int]:
    """Return the numbers of the trials of a study of several objectives that no other is better than in all; none of another."""
    return frozenset(trial.number for trial in study.best_trials) if len(study.directions) > 1 else ()
