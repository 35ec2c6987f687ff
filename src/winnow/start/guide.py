"""``winnow start``: from a folder of images to a trained model, step by step; every step is a command of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from winnow.config.compose import compose_command_line
from winnow.config.quoting import for_shell
from winnow.errors import CLEAN, PROBLEMS, ConfigError
from winnow.families.detection.describe import Description, describe_data
from winnow.preflight.report import format_duration
from winnow.reading import read_json
from winnow.run_folder import MadeFolders
from winnow.start.progress import Progress, StepFailedError, measure, run_step
from winnow.start.steps import (
    MEASURING_SECONDS,
    NUM_TRIALS,
    PROMOTED,
    Choice,
    Expected,
    Step,
    choose_model,
    expected,
    overrides_of,
    preflight_step,
    steps_of,
)
from winnow.start.suitable import require_suitable
from winnow.sweep.promotion import promotion_folder
from winnow.sweep.stored_study import StoredStudy

SHOWN = ("val/map", "val/map_50")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What the user asked for: ``source`` is the data, ``folder`` holds all that is made, ``weights`` is a file of ImageNet's."""

    source: Path
    folder: Path
    overrides: tuple[str, ...]
    weights: Path | None
    with_problems: bool


def guide(asked: Asked, say: Say, show: Callable[[Description], None], agrees: Callable[[str], bool]) -> bool:
    """Take the steps that are not done yet; return whether all are. ``say`` prints a line, ``show`` the description of the data;
    ``agrees`` is asked before each step, named by its command. Raises DataError, ConfigError or StepFailedError, and
    KeyboardInterrupt where the user stops it."""
    found = describe_data(asked.source)
    require_suitable(found, asked.source, asked.overrides)
    choice = choose_model(asked.weights)
    overrides = overrides_of(found.overrides, choice, asked.overrides)
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_slots = None if torch.cuda.is_available() else num_cores
    steps = steps_of(overrides, asked.source, asked.folder, num_slots, num_cores)
    with MadeFolders(asked.folder) as made:
        made.make()
        progress = Progress.read(asked.folder, asked.source, overrides)
        _measure_once(progress, asked, steps, overrides, say)
        made.keep()
    _say_plan(progress, choice, found, overrides, num_slots or 1, say)
    for number, step in enumerate(steps, start=1):
        say(f"\n[{number}/{len(steps)}] {step.typed()}")
        if step.name in progress.done:
            say(f"      done before, in {format_duration(progress.done[step.name])}")
        elif not agrees(step.name):
            return False
        else:
            progress.done[step.name] = _take(step, asked, found, show)
            progress.write(asked.folder)
    _say_where(asked.folder, say)
    return True


def _measure_once(progress: Progress, asked: Asked, steps: Sequence[Step], overrides: Sequence[str], say: Say) -> None:
    if progress.measured is not None:
        return
    threads = next((step.environment for step in steps if step.environment), {})
    step = preflight_step(overrides, asked.folder, MEASURING_SECONDS, threads)
    say(f"measuring how long it will take: {step.typed()}")
    progress.measured = measure(step, asked.folder)
    progress.write(asked.folder)


def _take(step: Step, asked: Asked, found: Description, show: Callable[[Description], None]) -> float:
    """Take one step; return its seconds."""
    if step.name == "describe":
        show(found)
        return 0.0
    try:
        return run_step(step, (CLEAN, PROBLEMS) if step.name == "check" and asked.with_problems else (CLEAN,))
    except StepFailedError as error:
        if step.name != "check":
            raise
        raise StepFailedError(
            f"{error}: the check found problems, which it names above; mend them, or go on in spite of them by --with-problems"
        ) from error


def _say_plan(
    progress: Progress, choice: Choice, found: Description, overrides: Sequence[str], num_slots: int, say: Say
) -> None:
    search = compose_command_line(None, [*overrides, "budget=search"]).config["training"]
    train = found.splits.get("train") or found.splits["all"]
    part = min(1.0, (search["subset_size"] or train.num_images) / train.num_images)
    assert progress.measured is not None
    seconds = expected(progress.measured.stage, progress.measured.wall, search["max_epochs"], part, num_slots)
    say(f"model: {choice.words}")
    for line in _plan_lines(seconds, search["max_epochs"], train.num_images):
        say(line)


def _plan_lines(seconds: Expected, epochs: int, num_images: int) -> list[str]:
    return [
        f"describe and check: every picture is read once, {num_images} of them to train on",
        f"preflight: {format_duration(seconds.preflight)}",
        f"search: {NUM_TRIALS} trials of {epochs} epochs, at most {format_duration(seconds.search)}; weak ones are stopped early",
        f"promote: the best one trained in full, {format_duration(seconds.promote)}",
        f"in all about {format_duration(seconds.total)} at most, as measured just now",
    ]


def _say_where(folder: Path, say: Say) -> None:
    """Say what came out and what can be done with it."""
    source = StoredStudy.open(folder / "search")
    (row, *_) = StoredStudy.open(promotion_folder(source.folder, ["budget=full", *PROMOTED])).rows()
    run = Path(row.outcome.run_folder or "")
    with contextlib.suppress(ValueError):
        run = run.relative_to(Path.cwd())
    best = read_json(run / "result.json", "the result of a run", ConfigError)["best_metrics"]
    words = ", ".join(f"{name} {best[name]:.4f}" for name in SHOWN if best.get(name) is not None)
    quoted = for_shell(str(run))
    say(f"\n{words}: the model in {run}")
    say(f"look at it:    {run / 'report.html'}")
    say(f"use it:        winnow predict {quoted} PICTURES --output {for_shell(str(folder / 'found'))}")
    say(f"the search:    winnow study {for_shell(str(folder / 'search'))}")
    say(f"train longer:  winnow train training.resume={quoted}/checkpoints/last.pth training.max_epochs=…")
