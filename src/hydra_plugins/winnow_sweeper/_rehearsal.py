"""What a sweep says and checks before it starts: what stands against it as a whole, and its runs by themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable

import optuna
from rich.table import Table

from hydra_plugins.winnow_sweeper._dry_run import DryRun, dry_run
from hydra_plugins.winnow_sweeper._plan import Plan
from hydra_plugins.winnow_sweeper._requirements import (
    num_independent,
    require_one_objective,
    require_own_folders,
    require_packages,
)
from hydra_plugins.winnow_sweeper._slots import check_devices, check_slots, num_jobs
from hydra_plugins.winnow_sweeper._space import bare
from hydra_plugins.winnow_sweeper._start_checks import StartChecks
from hydra_plugins.winnow_sweeper._study import extender, num_trials
from winnow.console import CONSOLE
from winnow.errors import ConfigError
from winnow.sweep.stored_study import DESCRIPTION

logger = logging.getLogger(__name__)


def unmet_requirements(plan: Plan) -> list[str]:
    """Return what stands against the sweep as a whole, one message each."""
    settings, errors = plan.settings, []
    checks: list[Callable[[], object]] = [
        lambda: check_slots(
            plan.config, num_jobs(settings), settings.devices, settings.in_process, settings.recycle_after
        ),
        lambda: check_devices(plan.config, num_jobs(settings), settings.devices),
        lambda: require_packages(settings.sampler, "hydra.sweeper.sampler"),
        lambda: require_one_objective(settings.sampler, settings.direction),
        lambda: require_own_folders(plan.config, [bare(name) for name in plan.space.distributions]),
    ]
    for check in checks:
        try:
            check()
        except ConfigError as error:
            errors.append(str(error))
    return errors


def rehearse(plan: Plan, checks: StartChecks, sampler: optuna.samplers.BaseSampler) -> DryRun:
    """Compose and check the listed trials, the first of the sampler and every value: a night must not find a bad one."""
    settings = plan.settings
    return dry_run(
        plan.space, plan.explicit, sampler, settings.direction, num_trials(plan),
        len(settings.seeds or [0]), plan.compose, lambda runs: checks.refusals(plan, runs), extender(plan),
        num_certain=num_certain(plan), default=None if (plan.folder / DESCRIPTION).exists() else plan.default,
    )  # fmt: skip


def num_certain(plan: Plan) -> int:
    """Return how many trials a start of this sweep would begin with whose values are known now: the listed ones, and of a study
    that has not begun those that the sampler draws without results."""
    if (plan.folder / DESCRIPTION).exists() or plan.settings.custom_search_space is not None:
        return len(plan.explicit)
    return max(len(plan.explicit), num_independent(plan.settings.sampler, plan.settings.n_trials))


def show(rehearsed: DryRun, plan: Plan) -> None:
    table = Table(title="what would run", title_justify="left")
    for column in ("", "epochs", "overrides", "error"):
        table.add_column(column, overflow="fold")
    for row in rehearsed.rows:
        epochs = "" if row.epochs is None else str(row.epochs)
        table.add_row(row.what, epochs, "  ".join(row.overrides), row.error or "")
    CONSOLE.print(table)
    epochs = "unknown" if rehearsed.epochs is None else str(rehearsed.epochs)
    images = "" if rehearsed.images is None else f", {rehearsed.images} images"
    logger.info("%s", what_is_certain(num_certain(plan), num_trials(plan)))
    logger.info(
        "at worst, without any pruning: %d runs, %s epochs%s; nothing was started", rehearsed.num_runs, epochs, images
    )


def what_is_certain(num_certain: int, n_trials: int) -> str:
    """Return in words which trials' values are known before the sweep starts."""
    if num_certain >= n_trials:
        return f"the values of all {n_trials} trials are certain: none follows from results"
    if num_certain == 0:
        return (
            "no trial's values are certain: the examples are drawn as the sampler draws, and the sweep will draw others"
        )
    return (
        f"the values of the first {num_certain} of {n_trials} trials are certain; those of the rest follow from results, and "
        "examples are only drawn as the sampler draws"
    )
