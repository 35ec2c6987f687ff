"""Class heads by the names of their classes: a class keeps what was learnt of it, whatever its place in the new list."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassHead:
    """A model's ``classes`` in their order, and which of its entries hold them one after the other: name → rows per class. These
    are the last rows of the entry; a background's come before."""

    classes: Sequence[str]
    rows: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Any) -> ClassHead:
        """Return that of a task, which says its rows by ``class_rows`` or not at all."""
        return cls(tuple(task.classes), getattr(task, "class_rows", {}))


def in_class_order(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], head: ClassHead, theirs: Sequence[str] | None, source: str
) -> dict[str, Tensor]:
    """Return the weights ``state`` of ``source`` with the rows of ``theirs``, its classes (None: not known), in the order of the
    model's. Names that can't be matched are left where they are, with a warning. ``own`` holds the model's entries."""
    ours = list(head.classes)
    held = [name for name in head.rows if name in state and name in own and state[name].shape == own[name].shape]
    if theirs is None and not held:
        return dict(state)
    if theirs is None or sorted(theirs) != sorted(ours) or (list(theirs) != ours and not head.rows):
        logger.warning(
            "weights of %s: %s; theirs: %s; this run's: %s",
            source, _doubt(theirs, ours, held), "not known" if theirs is None else ", ".join(theirs), ", ".join(ours),
        )  # fmt: skip
        return dict(state)
    if list(theirs) == ours or not held:
        return dict(state)
    logger.info(
        "weights of %s: the classes are the same in another order; the rows of %d entries follow their names",
        source, len(held),
    )  # fmt: skip
    order = [list(theirs).index(name) for name in ours]
    return {**state, **{name: _permuted(state[name], order, head.rows[name]) for name in held}}


def _doubt(theirs: Sequence[str] | None, ours: Sequence[str], held: Sequence[str]) -> str:
    """Return what is to be said of classes that can't be matched by name."""
    if theirs is not None and sorted(theirs) == sorted(ours):
        return "the classes have another order, and the model does not say which of its rows they are"
    if not held:
        return "the classes have other names"
    known = "the classes have other names" if theirs is not None else "the names of the classes are not in it"
    return f"{known}, and the class head is taken over row by row"


def _permuted(value: Tensor, order: Sequence[int], per_class: int) -> Tensor:
    rows = torch.arange(len(value))
    classes = rows[len(value) - per_class * len(order) :].reshape(len(order), per_class)
    before = rows[: len(value) - per_class * len(order)]
    return value[torch.cat([before, classes[list(order)].flatten()])]
