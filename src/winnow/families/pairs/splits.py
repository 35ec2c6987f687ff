"""Which frames are trained on and which are evaluated on: by whole sequences, validation never from a test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import field_validator

from winnow.errors import ConfigError, DataError
from winnow.families.pairs.frames import Frame, PairSource, first
from winnow.settings import Settings


class SplitLists(Settings):
    """Names of sequences, or of what they begin with (``set06`` for all of it), to train and to evaluate on."""

    train: list[str]
    val: list[str]

    @field_validator("train", "val", mode="before")
    @classmethod
    def _are_texts(cls, names: Any) -> Any:
        if isinstance(names, list) and any(isinstance(name, int) for name in names):
            raise ValueError("names are texts, as '01' or 'set06'; a number without quotes loses its leading zero")
        return names


Split = SplitLists | None
"""None: the official one."""


def choose_frames(
    source: PairSource,
    split: Split,
    held_out: Callable[[Sequence[str]], set[str]],
    is_judged: Callable[[Frame], bool] = lambda frame: True,
) -> tuple[list[Frame], list[Frame]]:
    """Return the frames to train and to evaluate on. ``official``: those of the training part, less the sequences that
    ``held_out`` takes of them for validation. Only frames that ``is_judged`` are evaluated on.

    Raises ConfigError for a name that matches nothing, DataError for an official split without frames to train or to validate on.
    """
    if split is not None:
        train, val = (_named(source, part, names) for part, names in (("train", split.train), ("val", split.val)))
    else:
        own = [frame for frame in source.frames if not frame.is_test]
        sequences = sorted({frame.sequence for frame in own})
        kept_back = held_out(sequences)
        train, val = ([f for f in own if (f.sequence in kept_back) == is_val] for is_val in (False, True))
        if not train or not val:
            raise DataError(
                f"{source.key}_split=official: {source.root} has {len(sequences)} sequences outside of the official test sets "
                f"({first(sequences) or 'none'}), which is too few to train on some and validate on others; there are in all "
                f"{first(source.sequences)}: name yours, as {source.key}_split={{train: [{source.sequences[0]}], val: […]}}"
            )
    return train, [frame for frame in val if is_judged(frame)]


def last_of_each_set(sequences: Sequence[str]) -> set[str]:
    """Return of each set (``set00`` of ``set00/V003``) that has several sequences the last: so validation sees all kinds."""
    by_set: dict[str, list[str]] = {}
    for sequence in sorted(sequences):
        by_set.setdefault(sequence.split("/")[0], []).append(sequence)
    return {of_set[-1] for of_set in by_set.values() if len(of_set) > 1}


def last_tenth(sequences: Sequence[str]) -> set[str]:
    """Return the last tenth of the sequences, at least one."""
    return set(sorted(sequences)[-math.ceil(len(sequences) / 10) :]) if sequences else set()


def _named(source: PairSource, part: str, names: Sequence[str]) -> list[Frame]:
    unmatched = [name for name in names if not any(_matches(sequence, name) for sequence in source.sequences)]
    if unmatched:
        raise ConfigError(
            f"{source.key}_split.{part}={list(names)}: {unmatched[0]!r} matches nothing in {source.root}; there are "
            f"{first(source.sequences, most=12)}"
        )
    return [frame for frame in source.frames if any(_matches(frame.sequence, name) for name in names)]


def _matches(sequence: str, name: str) -> bool:
    return sequence == name or sequence.startswith(f"{name}/")
