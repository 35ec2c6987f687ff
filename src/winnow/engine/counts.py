"""The named counts of a task, which its loss terms are divided by: per batch, per step and per evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from winnow.engine.ranks import Ranks
from winnow.errors import ConfigError
from winnow.protocols import Batch, Task

Counts = Mapping[str, float]


def batch_counts(task: Task, batch: Batch) -> dict[str, float]:
    """Return the counts of one batch by name. Raises ConfigError where the task gives anything but named numbers."""
    counts = task.loss_count(batch)
    if not isinstance(counts, Mapping) or not counts:
        raise ConfigError(
            f"{type(task).__name__}.loss_count returned {counts!r}; it must return named counts, as in "
            'return {"boxes": 12.0}; losses(outputs, batch, count) then divides by count["boxes"], and counted_by says which '
            'terms each count divides, as in {"loss_box": "boxes"}'
        )
    return {name: float(count) for name, count in counts.items()}


def add_counts(parts: Iterable[Counts]) -> dict[str, float]:
    """Return the sum of each count by name; a part may lack some."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, count in part.items():
            sums[name] = sums.get(name, 0) + count
    return sums


def divisors(counts: Counts) -> dict[str, float]:
    """Return what losses divide by: each count, and 1 where that is less."""
    return {name: max(1.0, count) for name, count in counts.items()}


def can_learn(counts: Counts) -> bool:
    """Return whether there is anything to learn from: not where all counts are 0."""
    return any(count > 0 for count in counts.values())


def sums_by_count(task: Task, terms: Mapping[str, Tensor], counts: Counts) -> dict[str, float]:
    """Return the sum of those terms that each count divides, by the count's name; waits for the device. Raises ConfigError as
    ``require_counted``."""
    groups: dict[str, list[Tensor]] = {}
    for name, term in terms.items():
        groups.setdefault(_count_of(task, name, counts), []).append(term)
    return {name: float(torch.stack(group).sum()) for name, group in groups.items()}


def require_counted(task: Task, terms: Iterable[str], counts: Counts) -> None:
    """Raise ConfigError for a term of which ``task.counted_by`` does not say what divides it, where that can't be told."""
    for term in terms:
        _count_of(task, term, counts)


def _count_of(task: Task, term: str, counts: Counts) -> str:
    name = getattr(task, "counted_by", {}).get(term)
    if name is None and len(counts) == 1:
        return next(iter(counts))
    if name is None or name not in counts:
        raise ConfigError(
            f"{type(task).__name__}.counted_by[{term!r}] is {name!r}; allowed are the names that loss_count gives: "
            f"{', '.join(counts)}"
        )
    return name


class CountSum:
    """Adds up counts over ranks, whose names all ranks agree on once."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._names: Sequence[str] = ()

    def __call__(self, counts: Counts, has_changed: bool) -> tuple[dict[str, float], bool]:
        """Return the counts of all ranks and whether ``has_changed`` on any, in one message; ``counts`` are empty on a rank
        without a sample. Raises ConfigError where their names are not those of the first step."""
        if not self._names:
            named = self._ranks.gather(list(counts))
            self._names = self._ranks.broadcast(next((names for names in named if names), []))
        if not set(counts) <= set(self._names):
            raise ConfigError(
                f"loss_count gave {', '.join(counts)}, and {', '.join(self._names)} before; the names must stay"
            )
        *sums, num_changed = self._ranks.sum(*(counts.get(name, 0.0) for name in self._names), has_changed)
        return dict(zip(self._names, sums, strict=True)), num_changed > 0
