"""winnow's loop against a bare loop over the same parts, and against the Hugging Face Trainer with transformers' own model."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterator

from engine import BLOCK, composed, launch, running, take_turns
from gpu_parts.fits import overrides
from gpu_parts.outcome import Figure, Place, at_least, at_most

OURS, BARE, TRAINER, TRAINER_WITH_OURS = "winnow", "same loop", "HF Trainer, its model", "HF Trainer"
TRAINERS = (TRAINER, TRAINER_WITH_OURS)


def race(place: Place) -> Iterator[Figure]:
    """winnow's loop against a bare loop over the same parts, and against the Hugging Face Trainer"""
    rounds, warm_up = (1, 1) if place.smoke else (4, 1)
    amp = "training.amp=bf16" if place.on_gpu else "training.amp=off"
    model, *sizes = overrides(place, amp, f"training.device={place.device}")
    config = composed(model.partition("=")[2], place.data, tuple(sizes))
    has_trainer = importlib.util.find_spec("accelerate") is not None
    with running() as contestants:
        for name in (OURS, BARE, *(TRAINERS if has_trainer else ())):
            contestants.append(launch(name, config, place.folder, show_messages=True))
        for contestant in contestants:  # they start at once: the seconds to the first step mean nothing here
            contestant.hear()
        take_turns(contestants, rounds, warm_up)
    seconds_of = {contestant.name: contestant.seconds for contestant in contestants}
    images = BLOCK * int(config["training"]["batch_size"])
    for name, blocks in seconds_of.items():
        yield Figure(name, images / statistics.median(blocks), "images/s")
    yield at_most("slower than the bare loop by", 100 * (ratio(seconds_of[OURS], seconds_of[BARE]) - 1), 1, "%")
    if not has_trainer:
        yield Figure("over the Trainer", "the package accelerate is not installed", verdict="skipped")
        return
    yield at_least("over the Trainer with its model", ratio(seconds_of[TRAINER], seconds_of[OURS]), 1.5, "×")
    yield Figure("over the Trainer with our model", ratio(seconds_of[TRAINER_WITH_OURS], seconds_of[OURS]), "×")


def ratio(ones: list[float], others: list[float]) -> float:
    """Return the median of the ratios within the rounds."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))
