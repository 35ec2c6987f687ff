"""What runs would be refused for at their start, told without starting one: for sweeps, which ask before their first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from winnow.config.instantiate import instantiate
from winnow.config.plain import Config
from winnow.engine.state import Cost
from winnow.errors import ConfigError, WinnowError
from winnow.protocols import Evaluation
from winnow.run.build import optimizer_factory
from winnow.run.pipeline import require_objective_of_last
from winnow.run.plan import RunPlan
from winnow.run.rehearsal import only_errors
from winnow.run.resolve import check_plans, taking_over

Run = tuple[Config, Sequence[tuple[Config, dict[str, str]]]]
"""A run as composed: its config, and of what it trains (itself, or the stages of a pipeline) the config and the choices."""
BETTER = {"max": "maximize", "min": "minimize"}


def answer(descriptor: int) -> None:
    """Answer the one question that comes through a pipe: the arguments of ``refusals``."""
    connection = Connection(descriptor)
    connection.send(refusals(*connection.recv()))


def refusals(
    runs: Sequence[Run], folder: Path, metrics: Sequence[str] | None, directions: Sequence[str], is_forced: bool
) -> list[str | None]:
    """Return for each of ``runs`` why it would be refused, None where it would begin.

    ``folder`` stands for the run's, which is not there yet. ``directions`` are what a sweep asks of ``metrics``, None of the
    run's objective; with ``is_forced`` the worse direction of a metric may be asked for. Reads no data.
    """
    found: list[str | None] = []
    for run in runs:
        try:
            with only_errors():
                _require_start(run, folder, metrics, directions, is_forced)
            found.append(None)
        except WinnowError as error:
            found.append(str(error))
    return found


def _require_start(
    run: Run, folder: Path, metrics: Sequence[str] | None, directions: Sequence[str], is_forced: bool
) -> None:
    whole, parts = run
    plans: list[RunPlan] = []
    for config, choices in parts:
        resumed = config["training"]["resume"]
        checkpoint = None if resumed in (None, "auto") else Path(resumed)
        plan = RunPlan.of(config, folder, choices, checkpoint, None)
        if not plan.settings.stage.is_alone:
            plan = RunPlan.of(config, folder / plan.name, choices, checkpoint, None)
        plans.append(taking_over(plan, [other.name for other in plans]))
    check_plans(plans, folder)
    for plan in plans:
        check_optimizer(plan)
    require_objective_of_last(whole, plans)
    require_sensible(plans[-1], metrics, directions, is_forced)


def check_optimizer(plan: RunPlan) -> None:
    """Raise ConfigError for settings that the optimizer's class refuses, by building it for one number."""
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": plan.settings.training.optimizer["lr"]}
    try:
        optimizer_factory(plan)([group])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"training.optimizer is refused by its class: {error}") from error


def require_sensible(plan: RunPlan, metrics: Sequence[str] | None, directions: Sequence[str], is_forced: bool) -> None:
    """Raise ConfigError where a sweep asks for a metric that the run does not give, or for the worse direction of one."""
    evaluation: Evaluation = instantiate(plan.config, "evaluation")
    modes = known_modes(evaluation, plan.settings.training.ema.also_raw)
    key = "objective.metric" if metrics is None else "hydra.sweeper.metrics"
    for name, direction in zip(metrics or [plan.settings.objective.metric], directions, strict=False):
        mode = next((mode for pattern, mode in modes.items() if fnmatchcase(name, pattern)), None)
        if mode is None:
            raise ConfigError(f"{key}: {name!r} is not a metric of this run; allowed: {', '.join(modes)}")
        if mode in BETTER and direction != BETTER[mode] and not is_forced:
            raise ConfigError(
                f"hydra.sweeper.direction={direction} of {name} would search for the worst: set {BETTER[mode]}, or "
                "hydra.sweeper.force_direction=true if it is meant"
            )


def known_modes(evaluation: Evaluation, also_raw: bool) -> Mapping[str, str]:
    """Return the names that a run's result may have (``*`` stands for whatever follows) → ``max`` or ``min``, whichever is
    better, or ``?`` where nobody says."""
    own: Mapping[str, str] = getattr(evaluation, "metric_modes", {"*": "?"})
    splits = ["val", "val_raw"] if also_raw else ["val"]
    return {
        **{f"{split}/{name}": mode for split in splits for name, mode in {"loss": "min", **own}.items()},
        "train/*": "min",
        **{f"cost/{name}": "min" for name in Cost.__dataclass_fields__},
    }
