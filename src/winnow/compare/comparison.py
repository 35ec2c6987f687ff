"""What sets checkpoints apart: their configs, their metrics, and how far their weights lie from the first one's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from winnow.checkpoints.layouts import aligned
from winnow.checkpoints.state_dicts import top_modules
from winnow.compare.subject import Subject
from winnow.config.flat import rename_keys_to_match, same

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norms keep beside their parameters."""


class Absent:
    """Stands where a config has no such key, which is not the same as null."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


@dataclass(frozen=True)
class Row:
    """A key and its value in each subject, ``ABSENT`` where there is none."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Change:
    """‖a−b‖ / ‖a‖ over the tensors that both have in the same shape, None where there is none; ``num_left_out`` of the first
    one's tensors had no such partner."""

    relative: float | None
    num_left_out: int


@dataclass(frozen=True)
class WeightRow:
    """A set of the first subject's parameters, its norm, and how far every other subject is from it. ``kind``: ``group`` of the
    optimizer, ``module`` of the network, ``all``."""

    kind: str
    name: str
    num_parameters: int
    norm: float
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Comparison:
    """The first subject is what the others are compared with."""

    subjects: tuple[Subject, ...]
    facts: tuple[Row, ...]
    config: tuple[Row, ...]
    metrics: tuple[Row, ...]
    weights: tuple[WeightRow, ...]
    renamed: tuple[str, ...]


def compare(subjects: Sequence[Subject]) -> Comparison:
    """Compare ``subjects``, two or more; the first is what the others are compared with."""
    first, *others = subjects
    weights, renamed = [], []
    for subject in others:
        state, words = aligned(subject.weights, first.weights)
        weights.append(state)
        if words is not None:
            renamed.append(f"{subject.label}: {words}")
    return Comparison(
        subjects=tuple(subjects),
        facts=tuple(rows([subject.facts for subject in subjects])),
        config=tuple(row for row in rows(_configs(subjects)) if _differs(row, subjects)),
        metrics=tuple(rows([subject.metrics for subject in subjects])),
        weights=tuple(_weight_rows(first, weights)),
        renamed=tuple(renamed),
    )


def rows(columns: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return every key of any column, in the order in which they come."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [Row(name, tuple(column.get(name, ABSENT) for column in columns)) for name in names]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return plain values; what JSON has no number for (NaN, infinity) is null, and so is an absent key, which
    ``absent`` lists.
    """
    subjects = comparison.subjects
    return {
        "subjects": [
            {
                "label": subject.label, "path": str(subject.path.absolute()), "kind": subject.kind,
                "origin": list(subject.origin), "facts": plain(subject.facts), "metrics": plain(subject.metrics),
                "has_config": subject.config is not None,
            }
            for subject in subjects
        ],
        "config": [
            {
                "key": row.name, "values": [plain(value) for value in row.values],
                "absent": [index for index, value in enumerate(row.values) if value is ABSENT],
            }
            for row in comparison.config
        ],
        "metrics": [{"name": row.name, "values": [plain(value) for value in row.values]} for row in comparison.metrics],
        "weights": [
            {
                "kind": row.kind, "name": row.name, "num_parameters": row.num_parameters, "norm": plain(row.norm),
                "relative_change": [plain(change.relative) for change in row.changes],
                "num_left_out": [change.num_left_out for change in row.changes],
            }
            for row in comparison.weights
        ],
        "renamed": list(comparison.renamed),
    }  # fmt: skip


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if value is ABSENT else str(value)


def _configs(subjects: Sequence[Subject]) -> list[Mapping[str, Any]]:
    """Return each config under the keys of the first that has one."""
    own = next((subject.config for subject in subjects if subject.config is not None), {})
    return [rename_keys_to_match(subject.config, own) if subject.config is not None else {} for subject in subjects]


def _differs(row: Row, subjects: Sequence[Subject]) -> bool:
    """Return whether values differ. Another program's config lacks most keys of ours, and a file may have none: that
    alone is no difference.
    """
    values = [
        value
        for value, subject in zip(row.values, subjects, strict=True)
        if subject.config is not None and not (subject.is_foreign and value is ABSENT)
    ]
    return any(not same(value, values[0]) for value in values[1:])


def _weight_rows(first: Subject, others: Sequence[Mapping[str, Tensor]]) -> Iterable[WeightRow]:
    parameters = {
        name: value
        for name, value in first.weights.items()
        if value.is_floating_point() and name.rpartition(".")[2] not in _STATISTICS
    }
    if len(first.groups) > 1:
        for name, members in first.groups.items():
            yield _weight_row("group", name, [member for member in members if member in parameters], parameters, others)
    for name, members in top_modules(parameters).items():
        yield _weight_row("module", name, members, parameters, others)
    yield _weight_row("all", "all parameters", list(parameters), parameters, others)


def _weight_row(
    kind: str, name: str, members: Sequence[str], own: Mapping[str, Tensor], others: Sequence[Mapping[str, Tensor]]
) -> WeightRow:
    squares = {member: _square(own[member]) for member in members}
    return WeightRow(
        kind=kind,
        name=name,
        num_parameters=sum(own[member].numel() for member in members),
        norm=math.sqrt(sum(squares.values())),
        changes=tuple(_change(members, squares, own, other) for other in others),
    )


def _change(
    members: Sequence[str], squares: Mapping[str, float], own: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> Change:
    both = [member for member in members if member in other and other[member].shape == own[member].shape]
    if not both:
        return Change(None, len(members))
    norm = sum(squares[member] for member in both)
    distance = sum(_square(own[member].double() - other[member].double()) for member in both)
    relative = math.sqrt(distance / norm) if norm > 0 else (0.0 if distance == 0 else math.inf)
    return Change(relative, len(members) - len(both))


def _square(value: Tensor) -> float:
    return float(value.double().square().sum())
