"""What a tracker's pages show people of a run besides its numbers: its name, a description, the columns to compare by."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from winnow.config.flat import flat
from winnow.config.plain import Config
from winnow.engine.state import Best
from winnow.masking import recorded
from winnow.protocols import Tracker
from winnow.run.plan import RunPlan
from winnow.run.result import RunResult
from winnow.sweep.current import CurrentTrial, current_trial
from winnow.tracking.experiment_view import (
    DATA_SOURCE_TAG,
    DATA_TAG,
    NOT_CONCLUDED,
    NOTE,
    metric_column,
    param_column,
    view_of,
)
from winnow.tracking.provenance import command_line

logger = logging.getLogger(__name__)

NAME_LENGTH = 250
_DOT = " · "
_SHORT = {"training.optimizer.lr": "lr", "training.batch_size": "batch"}
_COMPARED = ("training.optimizer.lr", "training.batch_size", "training.max_epochs")


def with_run_name(plan: RunPlan) -> Config:
    """Return the plan's config with a name for the tracked run, where its tracker takes one and none is set."""
    return _named(plan.config, run_name(plan, current_trial()))


def with_pipeline_name(config: Config, plans: Sequence[RunPlan]) -> Config:
    """Return ``config``, the tracker's of a whole pipeline, with a name for its run in the same way."""
    current, last = current_trial(), plans[-1]
    parts = [*_models_and_data(last)] if current is None else [_trial_words(last, current)]
    return _named(config, _DOT.join([*parts, " → ".join(plan.name for plan in plans)]))


def run_name(plan: RunPlan, current: CurrentTrial | None) -> str:
    """Return ``fcos_tiny · digits · lr 3e-3``; of a trial its study, number and what was searched, of a stage its own first."""
    is_alone = plan.settings.stage.is_alone
    if current is not None and is_alone:
        return _trial_words(plan, current)
    words = [*_models_and_data(plan), *_values(flat(plan.config), ["training.optimizer.lr"])]
    return _DOT.join([plan.name, *words] if not is_alone else words)


def tags_of(plan: RunPlan, folder: Path) -> dict[str, str]:
    """Return the tags that say what data, where the run's folder is, and which table compares it with others."""
    recorded_data = flat(plan.recorded["data"])
    source = next((str(recorded_data[key]) for key in ("root", "cache") if recorded_data.get(key)), _data_of(plan))
    return {
        DATA_TAG: _data_of(plan),
        DATA_SOURCE_TAG: source,
        "winnow.run_folder": str(folder.absolute()),
        **_view(plan),
    }


def description(plan: RunPlan, command: str, best: Best | None = None, status: str | None = None) -> dict[str, str]:
    """Return the tag that MLflow shows as the run's description: the best value, the data, the command. Without a
    ``status`` it is true of a run that goes on, and of one that was killed."""
    words = f"**{best.metric} {best.value:.4f}** at epoch {best.epoch}" if best is not None else "nothing was evaluated"
    first = f"{words}, {status}" if status is not None else NOT_CONCLUDED
    return {NOTE: f"{first}\n\nData: {_data_of(plan)}\n\nFolder: `{plan.folder.absolute()}`\n\n```\n{command}\n```\n"}


def pipeline_tags(plans: Sequence[RunPlan], folder: Path, result: RunResult | None = None) -> dict[str, str]:
    """Return the tags of a pipeline's own run, as ``tags_of`` and ``description`` do: its data and objective are the last
    stage's."""
    last = replace(plans[-1], folder=folder)
    tags = tags_of(last, folder)
    del tags[DATA_TAG]  # the stages' runs have their data as inputs
    best = None
    if result is not None and result.best is not None and result.objective is not None:
        best = Best(**result.best)
    return {**tags, **description(last, command_line() or "", best, result.status if result is not None else None)}


def log_files(tracker: Tracker, folder: Path) -> None:
    """Hand over the log of the process, as it is when it is sent."""
    for path in sorted(folder.glob("*.log")):
        tracker.log_artifact(path)


def short_number(value: Any) -> str:
    """Return a number as people write it: ``3e-3``, ``0.25``, ``16``; anything else as text."""
    if not isinstance(value, float):
        return str(value)
    if value and not 0.01 <= abs(value) < 10_000:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}"


def _named(config: Config, name: str) -> Config:
    tracking: Mapping[str, Any] = config["tracking"]
    if tracking.get("run_name", "") is not None:
        return config
    return {**config, "tracking": {**tracking, "run_name": str(recorded(name))[:NAME_LENGTH]}}


def _trial_words(plan: RunPlan, current: CurrentTrial) -> str:
    values = _values({**plan.choices, **flat(plan.config)}, current.searched)
    seed = [f"{current.repeated} {current.seed}"] if current.seed is not None else []
    return _DOT.join([f"{current.study} {current.number}", *values, *seed])


def _values(values: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [
        f"{_SHORT.get(key, key.rpartition('.')[2])} {short_number(values[key])}"
        for key in keys
        if values.get(key) is not None
    ]


def _models_and_data(plan: RunPlan) -> list[str]:
    model = plan.choices.get("model")
    return [*([model] if model else []), _data_of(plan)]


def _data_of(plan: RunPlan) -> str:
    return str(plan.choices.get("data") or plan.config["data"].get("_target_", "data").rpartition(".")[2])


def _view(plan: RunPlan) -> dict[str, str]:
    """Return the tag for the table of all runs with this objective; trials have one for their study, from its own run."""
    if current_trial() is not None:
        return {}
    objective = plan.settings.objective
    metric = objective.metric.removeprefix("val/")
    columns = [
        metric_column(f"best/{metric}"), metric_column("best/loss"), metric_column("epoch"), metric_column("cost/seconds"),
        *map(param_column, _COMPARED), f"tags.`{DATA_TAG}`",
    ]  # fmt: skip
    return view_of(metric, list(dict.fromkeys(columns)), columns[0], objective.mode == "max")
