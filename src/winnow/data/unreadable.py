"""Samples that can't be read: what stands for one, and what a batch does about it, the same in every family."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from winnow.data.loader import FolderGone, NothingReadable


class Unreadable(NamedTuple):
    """Stands for a sample of which an image can't be read, since an exception would end the worker process; ``gone_folder`` is
    its folder where that is gone as a whole."""

    problem: str
    gone_folder: str | None


class Replaced(NamedTuple):
    """``samples`` are all readable; ``problems`` says why others were not."""

    samples: list[Any]
    problems: tuple[str, ...]


def replace_unreadable(loaded: Sequence[Any]) -> Replaced | FolderGone | NothingReadable:
    """Return ``loaded`` with each unreadable sample replaced by the readable ones in turn, so that the size of the batch, and
    with it the number of steps, stays; what stands for a batch of which nothing can be read, or whose folder is gone."""
    unreadable = [sample for sample in loaded if isinstance(sample, Unreadable)]
    readable = [sample for sample in loaded if not isinstance(sample, Unreadable)]
    problems = tuple(sample.problem for sample in unreadable)
    gone = next((sample.gone_folder for sample in unreadable if sample.gone_folder), None)
    if gone is not None:
        return FolderGone(gone)
    if loaded and not readable:
        return NothingReadable(problems)
    spare = itertools.cycle(readable)
    return Replaced([next(spare) if isinstance(sample, Unreadable) else sample for sample in loaded], problems)
