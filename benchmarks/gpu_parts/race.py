"""winnow's loop against a bare loop over the same parts, and against the Hugging Face Trainer with transformers' own model."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from engine import BLOCK, composed, launch, running, take_turns
from gpu_parts.fits import overrides
from gpu_parts.outcome import Figure, Place, at_least, at_most

OURS, BARE, TRAINER, TRAINER_WITH_OURS = "winnow", "same loop", "HF Trainer, its model", "HF Trainer"


def race(place: Place) -> Iterator[Figure]:
    """winnow's loop against a bare loop over the same parts, and against the Hugging Face Trainer"""
    ours_alone = turns(place, (OURS, BARE))
    yield from speeds(place, ours_alone)
    slower = ratio(ours_alone[OURS], ours_alone[BARE]) - 1
    yield at_most("slower than the bare loop by", 100 * slower, 1, "%")
    if importlib.util.find_spec("accelerate") is None:
        yield Figure("over the Trainer", "the package accelerate is not installed", verdict="skipped")
        return
    for trainer, words in ((TRAINER, "its model"), (TRAINER_WITH_OURS, "our model")):
        pair = turns(place, (OURS, trainer))
        yield from speeds(place, {trainer: pair[trainer]})
        quicker = ratio(pair[trainer], pair[OURS])
        name = f"over the Trainer with {words}"
        yield at_least(name, quicker, 1.5, "×") if trainer == TRAINER else Figure(name, quicker, "×")


def turns(place: Place, names: Sequence[str]) -> dict[str, list[float]]:
    """Return the seconds of each block of steps, by contestant; they take turns."""
    rounds, warm_up = (1, 1) if place.smoke else (4, 1)
    config = composed_for(place)
    with running() as contestants:
        contestants += [launch(name, config, place.folder, show_messages=True) for name in names]
        for contestant in contestants:  # they start at once: the seconds to the first step mean nothing here
            contestant.hear()
        take_turns(contestants, rounds, warm_up)
        return {contestant.name: contestant.seconds for contestant in contestants}


def speeds(place: Place, seconds_of: dict[str, list[float]]) -> Iterator[Figure]:
    images = BLOCK * int(composed_for(place)["training"]["batch_size"])
    for name, blocks in seconds_of.items():
        yield Figure(name, images / statistics.median(blocks), "images/s")


def composed_for(place: Place) -> dict[str, Any]:
    amp = "training.amp=bf16" if place.on_gpu else "training.amp=off"
    model, *sizes = overrides(place, amp, f"training.device={place.device}")
    return composed(model.partition("=")[2], place.data, tuple(sizes))


def ratio(ones: list[float], others: list[float]) -> float:
    """Return the median of the ratios within the rounds."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))
